"""Measures free memory, and checks that a checkpoint fits into it before the checkpoint is read."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from redraft.model.config import ModelConfig
from redraft.model.linear.methods import MAX_DEQUANTIZED
from redraft.model.precision import PRECISIONS, Precision
from redraft.model.preparation import packed_embedding_bytes
from redraft.weights.checkpoint import DTYPE_NAMES, Checkpoint
from redraft.weights.sizes import ModelSizes, precision_bytes

MEMINFO = Path("/proc/meminfo")
CGROUPS = Path("/proc/self/cgroup")
CGROUP_ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class MachineMemory:
    """The main memory of this machine, in bytes."""

    total: int
    available: int


def machine_memory() -> MachineMemory:
    """Returns this machine's total and available memory; if the latter is unknown, all of it counts as available."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    available = available_memory()
    return MachineMemory(total, total if available is None else min(total, available))


def available_memory() -> int | None:
    """Returns the bytes that a process can still allocate (Linux): the kernel's estimate, or a cgroup's limit if lower.

    Returns None if that is unknown.
    """
    limits = list(_cgroup_headroom())
    if MEMINFO.is_file():
        fields = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines() if ":" in line)
        if "MemAvailable" in fields:
            limits.append(int(fields["MemAvailable"].split()[0]) * 1024)
    return min(limits, default=None)


def peak_memory() -> int | None:
    """Returns the most bytes that this process has held so far (Linux); None if that is unknown."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else ()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


def check_available(needed: int, what: str, way_out: str) -> None:
    """Raises ValueError, with the numbers, if `what` needs more bytes than are free, as far as that is known."""
    free = available_memory()
    if free is not None and needed > free:
        raise ValueError(
            f"{what} needs {needed / 1e9:.2f} GB of memory, but only {free / 1e9:.2f} GB are free: {way_out}"
        )


def check_fits(checkpoint: Checkpoint, precision: str) -> None:
    """Raises ValueError if loading `checkpoint` in `precision` and running a step needs more memory than is free."""
    way_out = "free some memory, or use a machine with more"
    if checkpoint.bits is None:
        smallest = min(PRECISIONS, key=lambda one: one.weight_bits).name
        smaller = "" if precision == smallest else "choose a precision of fewer bits; "
        way_out = f"{smaller}quantizing it to int8 or int4 makes a smaller checkpoint"
    check_available(loading_bytes(checkpoint, precision), f"{checkpoint.folder} in {precision}", way_out)


def loading_bytes(checkpoint: Checkpoint, precision: str) -> int:
    """Returns the peak memory of loading a checkpoint and running a 256-token step, in bytes.

    Weights that need no conversion are mapped pages of the file. Otherwise all weights are converted first; then the
    layers are prepared one at a time, so that one prepared layer adds to the peak. Mapped pages count in full: the
    kernel can drop them, but then every step reads the file again.
    """
    config = checkpoint.config
    running = running_bytes(config, precision)
    if checkpoint.bits is not None:
        return running
    base = Precision.named(precision).dtype
    converted = any(tensor.dtype != DTYPE_NAMES[base] for tensor in checkpoint.tensors.values())
    loaded = ModelSizes.of(config).parameters * base.itemsize if converted else 0
    kept = precision_bytes(config, precision)
    return running + max(0, loaded + kept // config.num_layers - kept)


def running_bytes(config: ModelConfig, precision: str) -> int:
    """Returns the memory of a prepared model and of a 256-token step, in bytes, from the config alone."""
    packed = packed_embedding_bytes(config, Precision.named(precision).dtype)
    return precision_bytes(config, precision) + packed + _step_bytes(config)


def _step_bytes(config: ModelConfig) -> int:
    """Returns a generous bound on what a 256-token step needs besides the weights, in bytes."""
    rows = 256
    choices = rows * config.experts_per_token * (2 * config.hidden_size + 3 * config.expert_size)
    widest = max(config.num_heads * config.attention_shape(i).head_dim for i in range(config.num_layers))
    attention = rows * (3 * widest + config.num_heads * rows)
    return 4 * (choices + attention + 4 * MAX_DEQUANTIZED) + ModelSizes.of(config).kv_bytes(rows, 4)


def _cgroup_headroom() -> Iterator[int]:
    """Yields the bytes that each cgroup of this process leaves free; page cache that can be dropped counts as free."""
    for folder, limit_file, usage_file in _cgroup_folders():
        try:
            limit = (folder / limit_file).read_text().strip()
            usage = int((folder / usage_file).read_text())
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            # There is no such cgroup, or it has no memory controller.
            continue
        # In cgroup v1, "no limit" is a number near 2**63.
        if limit != "max" and int(limit) < 2**60:
            # In cgroup v1, only the totals include child cgroups.
            droppable = sum(int(stat.get(f"total_{key}", stat.get(key, 0))) for key in ("active_file", "inactive_file"))
            yield max(0, int(limit) - usage + droppable)


def _cgroup_folders() -> Iterator[tuple[Path, str, str]]:
    """Yields each cgroup from this process's own up to the root: its folder, limit file and usage file."""
    if not CGROUPS.is_file():
        return
    for line in CGROUPS.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, files = CGROUP_ROOT, ("memory.max", "memory.current")
        elif controllers == "memory":
            root, files = CGROUP_ROOT / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        own = root / path.lstrip("/")
        # In a container, the path may be the host's; then only the root exists.
        for folder in (own, *own.parents):
            yield folder, *files
            if folder == root:
                break
