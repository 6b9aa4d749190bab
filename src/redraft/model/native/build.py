"""Building kernels.cpp for this machine's processor, once, with the compiler that is there."""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from redraft.model.native.kernels import Kernels

SOURCE = Path(__file__).with_name("kernels.cpp")
FLAGS = (
    "-O3",
    "-march=native",
    "-std=c++17",
    "-fPIC",
    "-fopenmp",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-mprefer-vector-width=512",
)
SWITCH = "REDRAFT_KERNELS"
"""The environment variable that turns them off: "off"."""

_log = logging.getLogger(__name__)


@functools.cache
def kernels_here() -> Kernels | None:
    """The kernels, built if they are not in the cache yet (some seconds); None where torch has to do without.

    That is on another system than Linux, without a compiler, and with REDRAFT_KERNELS=off in the environment, which
    also is the way to compare. Why they are not there is logged. ValueError for another value of the variable.
    """
    if (switch := os.environ.get(SWITCH, "on")) not in ("on", "off"):
        raise ValueError(f"{SWITCH} is {switch!r}, must be on or off")
    if switch == "off" or sys.platform != "linux":
        return None
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    # torch's own, already in the process: a second one would bring threads of its own.
    openmp = sorted((Path(torch.__file__).parent / "lib").glob("libgomp*"))
    if compiler is None or not openmp:
        _log.info("no kernels: %s", "no C++ compiler" if compiler is None else "torch brings no libgomp")
        return None
    try:
        return Kernels(ctypes.CDLL(str(_built(compiler, openmp[0]))))
    except (OSError, subprocess.SubprocessError) as error:
        _log.warning("kernels could not be built, so steps take longer: %s", getattr(error, "stderr", None) or error)
        return None


def _built(compiler: str, openmp: Path) -> Path:
    """The library's path in the user's cache, named by all that its content follows from."""
    content = (SOURCE.read_bytes(), *map(str.encode, (compiler, *FLAGS, str(openmp), platform.machine(), _processor())))
    name = hashlib.sha256(b"\\0".join(content)).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "redraft"
    library = folder / f"kernels-{name}.so"
    if not library.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            unlinked, linked = Path(work) / "kernels.o", Path(work) / "kernels.so"
            # In two steps: linking with -fopenmp would bring the compiler's own OpenMP.
            for command in (
                [compiler, *FLAGS, "-c", str(SOURCE), "-o", str(unlinked)],
                [compiler, "-shared", str(unlinked), str(openmp), "-o", str(linked)],
            ):
                subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
            linked.replace(library)
    return library


def _processor() -> str:
    """What -march=native looks at."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
