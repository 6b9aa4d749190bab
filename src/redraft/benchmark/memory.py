"""The memory that a model takes: loaded in a process of its own, with one canvas denoised for some steps.

`python -m redraft.benchmark.memory FOLDER STEPS` is that process; it prints one JSON object.
"""

import json
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from redraft.benchmark.timing import describe_machine
from redraft.diffusion.randomness import Counter
from redraft.diffusion.settings import SamplerSettings
from redraft.generation.loop import denoise
from redraft.model.cache import KVCache
from redraft.model.precision import Precision
from redraft.model.preparation import prepare
from redraft.weights import synthetic
from redraft.weights.checkpoint import Checkpoint, load_model
from redraft.weights.config.file import read_config
from redraft.weights.fetch import fetch_config
from redraft.weights.memory import check_available, running_bytes
from redraft.weights.quantize import TARGETS
from redraft.weights.storage.shards import Report

_KINDS = {"VmRSS": "resident", "RssAnon": "anonymous", "RssFile": "mapped"}
_INTERVAL_SECONDS = 0.05
_OUT_OF_MEMORY = ("MemoryError", "t allocate memory", "Cannot allocate memory")
"""Parts of the messages of Python, torch and the system; the kernel kills without one."""


def measure_shape(
    model: str, to: str, *, steps: int, folder: Path | None = None, report: Report | None = None
) -> dict[str, Any]:
    """Measures a model's shape with random weights in "int8" or "int4", as `measure_footprint` does.

    model: as `load` takes it; only its configuration is fetched. folder: where the weights are written and kept, and
    found again; None is a temporary folder. report: called with the bytes written and their total. Raises ValueError
    where memory does not suffice, and where `folder` holds another checkpoint. Linux only.
    """
    if not Path("/proc/self/status").is_file():
        raise ValueError("measuring memory reads /proc/self/status, which this system does not have: it requires Linux")
    if to not in TARGETS:
        raise ValueError(f"to is {to!r}, must be {' or '.join(TARGETS)}")
    config = read_config(fetch_config(model))
    precision = Precision.of_bits(TARGETS[to])[0].name
    # Before gigabytes are written.
    check_available(
        running_bytes(config, precision), f"{model} in {precision}", "free some, or run it where there is more"
    )
    with tempfile.TemporaryDirectory(prefix="redraft-", ignore_cleanup_errors=True) as temporary:
        place = folder or Path(temporary)
        if not (place / "config.json").exists():
            synthetic.write_synthetic(place, config, to, report)
        checkpoint = Checkpoint.open(place)
        if checkpoint.bits != TARGETS[to] or checkpoint.config != config:
            raise ValueError(f"{place} holds another checkpoint than {model} in {to}; name a new folder")
        return measure_footprint(place, steps)


def measure_footprint(folder: Path, steps: int) -> dict[str, Any]:
    """Loads and runs the checkpoint in `folder` in a fresh process.

    Bytes: `peak_resident` is the most that was resident at a time, mapped pages of the checkpoint's files included;
    `peak_anonymous` the most that has no file behind it, which the kernel cannot drop. `seconds_per_step` is the median
    of all steps but the first, which reads the file: `first_step_seconds`.

    Raises ValueError where memory did not suffice or the process was killed, RuntimeError with its message if it fails
    otherwise.
    """
    command = [sys.executable, "-m", "redraft.benchmark.memory", str(folder), str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == -signal.SIGKILL or any(sign in done.stderr for sign in _OUT_OF_MEMORY):
        what = "was killed, as the system does when memory runs out" if done.returncode < 0 else "got no more memory"
        raise ValueError(f"the process that measures {folder} {what}: free some, or run it where there is more")
    if done.returncode:
        raise RuntimeError(f"the measuring process ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _measure(folder: Path, steps: int) -> dict[str, Any]:
    with _peaks() as peaks:
        checkpoint = Checkpoint.open(folder)
        assert checkpoint.bits is not None
        chosen = Precision.of_bits(checkpoint.bits)[0]
        start = time.perf_counter()
        model = prepare(load_model(checkpoint, chosen.dtype), chosen.name)
        load_seconds = time.perf_counter() - start
        config = model.config
        seconds, faults = [], []
        with torch.inference_mode():
            # One canvas that is not finished before its last step.
            settings = SamplerSettings.of(steps=steps, confidence_threshold=1e-9)
            canvas = denoise(model, KVCache(config), settings, Counter(0), config.canvas_length)
            for _ in range(steps):
                start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
                next(canvas)
                seconds.append(time.perf_counter() - start)
                faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    later = sorted(seconds[1:]) or seconds
    return {
        "precision": chosen.name,
        "canvas_length": config.canvas_length,
        "load_seconds": round(load_seconds, 2),
        "first_step_seconds": round(seconds[0], 2),
        "seconds_per_step": round(later[len(later) // 2], 2),
        "page_faults_per_step": faults[-1],
        "peak_resident": peaks["resident"],
        "peak_anonymous": peaks["anonymous"],
        "peak_mapped": peaks["mapped"],
        "file_bytes": sum(file.stat().st_size for file in folder.glob("*.safetensors")),
        "machine": describe_machine(),
    }


@contextmanager
def _peaks() -> Iterator[dict[str, int]]:
    """Yields the most bytes of each kind that were resident during the block."""
    peaks = dict.fromkeys(_KINDS.values(), 0)
    ended = threading.Event()

    def sample() -> None:
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        for key, kind in _KINDS.items():
            peaks[kind] = max(peaks[kind], int(status[key].split()[0]) * 1024)

    def watch() -> None:
        while not ended.wait(_INTERVAL_SECONDS):
            sample()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peaks
    finally:
        sample()
        ended.set()
        watcher.join()


if __name__ == "__main__":
    print(json.dumps(_measure(Path(sys.argv[1]), int(sys.argv[2]))))
