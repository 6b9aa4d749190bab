"""How much memory is free here, and whether a checkpoint fits into it before it is read."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from redraft.model import PRECISIONS, ModelConfig, Precision, packed_embedding_bytes
from redraft.model.linear.methods import MAX_DEQUANTIZED
from redraft.weights.checkpoint import STORED_AS, Checkpoint
from redraft.weights.sizes import ModelSizes, precision_bytes

MEMINFO = Path("/proc/meminfo")
CGROUPS = Path("/proc/self/cgroup")
CGROUP_ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class MachineMemory:
    """Main memory in bytes."""

    total: int
    available: int


def machine_memory() -> MachineMemory:
    """What this machine has and what of it is free to use; where that is not known, all of it is taken to be."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    available = available_memory()
    return MachineMemory(total, total if available is None else min(total, available))


def available_memory() -> int | None:
    """Bytes that a process can still take: what the kernel says (Linux), or less where its control group has a limit.

    None where it is not known.
    """
    limits = list(_left_in_cgroups())
    if MEMINFO.is_file():
        fields = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines() if ":" in line)
        if "MemAvailable" in fields:
            limits.append(int(fields["MemAvailable"].split()[0]) * 1024)
    return min(limits, default=None)


def check_available(needed: int, what: str, way_out: str) -> None:
    """ValueError, with the numbers, where `what` takes more bytes than are free here; nothing where that is unknown."""
    free = available_memory()
    if free is not None and needed > free:
        raise ValueError(f"{what} takes {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB of memory are free here: {way_out}")


def check_fits(checkpoint: Checkpoint, precision: str) -> None:
    """ValueError where loading `checkpoint` in `precision`, and a step with it, takes more memory than is free here."""
    way_out = "free some, or run it where there is more"
    if checkpoint.bits is None:
        smallest = min(PRECISIONS, key=lambda one: one.weight_bits).name
        smaller = "" if precision == smallest else "take a smaller --precision; "
        way_out = f"{smaller}`redraft quantize` writes a smaller checkpoint (--to int8 or int4)"
    check_available(loading_bytes(checkpoint, precision), f"{checkpoint.folder} in {precision}", way_out)


def loading_bytes(checkpoint: Checkpoint, precision: str) -> int:
    """Most bytes that loading takes, and a 256-token step after it.

    Weights that need no conversion are mapped pages of the file. Others are converted as a whole before the layers are
    prepared, one after the other, so that the prepared part of one layer comes on top of them. Mapped pages can be
    dropped, but whoever counts on that reads the file again in every step.
    """
    config = checkpoint.config
    running = running_bytes(config, precision)
    if checkpoint.bits is not None:
        return running
    base = Precision.named(precision).dtype
    converted = any(tensor.dtype != STORED_AS[base] for tensor in checkpoint.tensors.values())
    loaded = ModelSizes.of(config).parameters * base.itemsize if converted else 0
    kept = precision_bytes(config, precision)
    return running + max(0, loaded + kept // config.num_layers - kept)


def running_bytes(config: ModelConfig, precision: str) -> int:
    """Bytes of a model that is ready to run in a precision, and of a 256-token step: known from its config alone."""
    packed = packed_embedding_bytes(config, Precision.named(precision).dtype)
    return precision_bytes(config, precision) + packed + _step_bytes(config)


def _step_bytes(config: ModelConfig) -> int:
    """What a step of 256 tokens takes besides the weights: a generous count of what lives at the same time."""
    rows = 256
    choices = rows * config.experts_per_token * (2 * config.hidden_size + 3 * config.expert_size)
    widest = max(config.num_heads * config.attention_shape(i).head_dim for i in range(config.num_layers))
    attention = rows * (3 * widest + config.num_heads * rows)
    return 4 * (choices + attention + 4 * MAX_DEQUANTIZED) + ModelSizes.of(config).kv_bytes(rows, 4)


def _left_in_cgroups() -> Iterator[int]:
    """What each control group around this process leaves it, page cache that could be dropped counted as free."""
    for folder, limit_file, usage_file in _cgroups():
        try:
            limit = (folder / limit_file).read_text().strip()
            usage = int((folder / usage_file).read_text())
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            # No such group, or none with a memory controller.
            continue
        # The older interface says "no limit" with a number near 2**63.
        if limit != "max" and int(limit) < 2**60:
            # The older interface counts what groups below hold in the totals only.
            droppable = sum(int(stat.get(f"total_{key}", stat.get(key, 0))) for key in ("active_file", "inactive_file"))
            yield max(0, int(limit) - usage + droppable)


def _cgroups() -> Iterator[tuple[Path, str, str]]:
    """Folder of each group from this process's own up to the root, and its files with limit and usage."""
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
        # In a container the path may be that of the host; then the root is what there is.
        for folder in (own, *own.parents):
            yield folder, *files
            if folder == root:
                break
