"""What a model takes of a machine: loaded in a process of its own, with one canvas denoised for some steps.

`python -m redraft.benchmark.memory FOLDER STEPS` is that process; it prints one JSON object.
"""

import json
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_KINDS = {"VmRSS": "resident", "RssAnon": "anonymous", "RssFile": "mapped"}
_INTERVAL = 0.05
_TOO_LITTLE = ("MemoryError", "t allocate memory", "Cannot allocate memory")
"""What Python, torch and the system say where they get no memory; the kernel kills without a word."""


def measure_footprint(folder: Path, steps: int) -> dict[str, Any]:
    """Loads and runs the checkpoint in `folder` in a fresh process.

    ValueError where the memory did not suffice or somebody killed it, RuntimeError with what it said if it fails else.

    Bytes: `peak_resident` is the most that was resident at a time, mapped pages of the checkpoint's files included;
    `peak_anonymous` the most that no file is behind, which the kernel cannot drop. `seconds_per_step` is the median
    of all steps but the first, which reads the file: `first_step_seconds`.
    """
    command = [sys.executable, "-m", "redraft.benchmark.memory", str(folder), str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == -signal.SIGKILL or any(sign in done.stderr for sign in _TOO_LITTLE):
        what = "was killed, as the system does where memory runs out" if done.returncode < 0 else "got no more memory"
        raise ValueError(f"the process that measures {folder} {what}: free some, or run it where there is more")
    if done.returncode:
        raise RuntimeError(f"the measuring process ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _measure(folder: Path, steps: int) -> dict[str, Any]:
    with _peaks() as peaks:
        import torch

        from redraft.diffusion.randomness import Counter
        from redraft.diffusion.settings import SamplerSettings
        from redraft.generation import denoise
        from redraft.model import KVCache, Precision, prepare
        from redraft.weights import Checkpoint, load_model

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
    from redraft.benchmark.timing import machine

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
        "machine": machine(),
    }


@contextmanager
def _peaks() -> Iterator[dict[str, int]]:
    """The most bytes of each kind that were resident while the body ran, looked at every twentieth of a second."""
    peaks = dict.fromkeys(_KINDS.values(), 0)
    ended = threading.Event()

    def look() -> None:
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        for key, kind in _KINDS.items():
            peaks[kind] = max(peaks[kind], int(status[key].split()[0]) * 1024)

    def watch() -> None:
        while not ended.wait(_INTERVAL):
            look()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peaks
    finally:
        look()
        ended.set()
        watcher.join()


if __name__ == "__main__":
    print(json.dumps(_measure(Path(sys.argv[1]), int(sys.argv[2]))))
