"""Building what is written in C++ for this machine's processor, once, with the compiler that is there."""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from redraft.model.native.kernels import Kernels

SOURCES = [Path(__file__).with_name(name) for name in ("kernels.cpp", "conditioning.cpp")]
FLAGS = (
    "-O3",
    "-march=native",
    "-std=c++17",
    "-fPIC",
    "-fopenmp",
    "-fno-math-errno",
    "-fno-trapping-math",
)
X86_FLAG = "-mprefer-vector-width=512"
KERNELS_VARIABLE = "REDRAFT_KERNELS"
"""The environment variable that turns them off: "off"."""

_log = logging.getLogger(__name__)


@functools.cache
def load_kernels() -> Kernels | None:
    """Returns the kernels, built if they are not in the cache yet (some seconds); None where torch has to do without.

    That is on another system than Linux, without a compiler, and with REDRAFT_KERNELS=off in the environment, which
    also is the way to compare. Why they are not there is logged. ValueError for another value of the variable.
    """
    if (switch := os.environ.get(KERNELS_VARIABLE, "on")) not in ("on", "off"):
        raise ValueError(f"{KERNELS_VARIABLE} is {switch!r}, must be on or off")
    if switch == "off" or sys.platform != "linux":
        return None
    compiler = shlex.split(os.environ.get("CXX") or "g++")
    # torch's own, already in the process: a second one would bring threads of its own.
    openmp = sorted((Path(torch.__file__).parent / "lib").glob("libgomp*"))
    if shutil.which(compiler[0]) is None or not openmp:
        _log.info("no kernels: %s", f"no {compiler[0]}" if openmp else "torch brings no libgomp")
        return None
    try:
        return _cached(compiler, openmp[0])
    except (OSError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
        _log.warning("kernels could not be built, so steps take longer: %s", getattr(error, "stderr", None) or error)
        return None


def _cached(compiler: list[str], openmp: Path) -> Kernels:
    """From the user's cache if it is there, else built into it; without a place to write only for this process."""
    flags = [*FLAGS, *([X86_FLAG] if platform.machine() == "x86_64" else [])]
    texts = [source.read_text(encoding="utf-8") for source in SOURCES]
    content = (*texts, *compiler, *flags, str(openmp), platform.machine(), _processor())
    name = hashlib.sha256("\0".join(content).encode()).hexdigest()[:16]
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "redraft"
        folder.mkdir(parents=True, exist_ok=True)
        work = tempfile.TemporaryDirectory(dir=folder)
    except (OSError, RuntimeError):
        folder, work = None, tempfile.TemporaryDirectory()
    with work:
        if folder is not None:
            for library in folder.glob(f"kernels-{name}-*.so"):
                # Loading what a full disk or a power cut has left of one would end the process.
                if library.stem.endswith(_digest(library)):
                    return Kernels(ctypes.CDLL(str(library)))
                library.unlink(missing_ok=True)
        unlinked = [Path(work.name) / f"{source.stem}.o" for source in SOURCES]
        linked = Path(work.name) / "kernels.so"
        # In two steps: linking with -fopenmp would bring the compiler's own OpenMP.
        for command in (
            *([*compiler, *flags, "-c", str(one), "-o", str(to)] for one, to in zip(SOURCES, unlinked, strict=True)),
            [*compiler, "-shared", *map(str, unlinked), str(openmp), "-o", str(linked)],
        ):
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
        # What is mapped stays, also where its file goes with the folder.
        built = Kernels(ctypes.CDLL(str(linked)))
        if folder is not None:
            linked.replace(folder / f"kernels-{name}-{_digest(linked)}.so")
        return built


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def _processor() -> str:
    """What -march=native looks at."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
