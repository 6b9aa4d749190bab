"""Writing quantized checkpoints: the released layout, with values of few bits in the matrices' place and their scales
beside them (`model/quantized.py` has the form), and `quantization_config` in config.json.

One tensor at a time is in memory; the checkpoint that is read is memory-mapped and left a shard at a time.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from redraft.model import PRECISIONS, ModelConfig
from redraft.model.linear.quantized import Form, QuantizedMatrix, is_quantized
from redraft.utils.json_files import json_bytes
from redraft.weights.checkpoint import STORED_AS, Checkpoint, all_finite, check_unchanged
from redraft.weights.config.file import (
    CONFIG_FILE,
    GENERATION_CONFIG_FILE,
    QUANTIZATION_KEY,
    config_to_json,
    quantization_json,
)
from redraft.weights.save import copy_companions, with_dtype
from redraft.weights.storage.header import StoredTensor
from redraft.weights.storage.names import checkpoint_name, scale_name
from redraft.weights.storage.publish import SAVING, staged, write_synced
from redraft.weights.storage.shards import Item, Piece, write_shards

TARGETS = {one.stored: one.weight_bits for one in PRECISIONS if one.is_quantized}
"""What `--to` takes: bits by name."""

Report = Callable[[int, int], None]
"""Told the bytes written so far, and all there will be."""


def quantize_checkpoint(source: Path | str, target: Path | str, to: str, report: Report | None = None) -> None:
    """Writes the checkpoint in `source` to the new folder `target`, its matrices in 8 ("int8") or 4 bits ("int4").

    Weights are rounded from bfloat16, so that what is stored is what loading `source` in that precision gives. Raises
    ValueError, before anything is written, for an unknown `to`, a source that is quantized, a target that holds
    anything and a disk without the room. If it is interrupted, nothing is left under `target`.
    """
    source, target = Path(source), Path(target)
    check_quantize(target, to)
    checkpoint = Checkpoint.open(source)
    checkpoint.check_unquantized()
    bits = TARGETS[to]
    # In the order in which they are stored, so that the source is read once from its beginning to its end.
    tensors = sorted(checkpoint.tensors.items(), key=lambda one: (one[1].file, one[1].start))
    pieces = [
        quantized_piece(name, one.shape, bits, _reader(one)) if is_quantized(name) else _kept(one)
        for name, one in tensors
    ]
    pieces += map(Piece.of_stored, checkpoint.unused.values())

    def companions(staging: Path) -> None:
        copy_companions(source, staging)
        if (source / GENERATION_CONFIG_FILE).is_file():
            write_synced(staging / GENERATION_CONFIG_FILE, (source / GENERATION_CONFIG_FILE).read_bytes())

    write_quantized(target, checkpoint.config, pieces, bits, dict(checkpoint.original), companions, report)


def write_quantized(
    target: Path,
    config: ModelConfig,
    pieces: list[Piece],
    bits: int,
    original: dict[str, object],
    companions: Callable[[Path], None],
    report: Report | None = None,
) -> None:
    """Publishes a quantized checkpoint of `pieces` in `target`; `companions` writes what else it is to hold."""
    total = sum(piece.num_bytes for piece in pieces)
    _check_disk(target, total)
    written = 0

    def count(num_bytes: int) -> None:
        nonlocal written
        written += num_bytes
        if report is not None:
            report(written, total)

    with staged(target) as staging:
        write_shards(staging, pieces, report=count)
        companions(staging)
        content = config_to_json(config, with_dtype(original, {"BF16"})) | {QUANTIZATION_KEY: quantization_json(bits)}
        write_synced(staging / CONFIG_FILE, json_bytes(content))


def quantized_piece(name: str, shape: tuple[int, ...], bits: int, read: Callable[[], Tensor]) -> Piece:
    """Values and scales of the matrix that `read` gives, by our `name`."""
    form = Form.of(shape, bits)
    stored = checkpoint_name(name)
    items = (
        Item(stored, STORED_AS[form.values_dtype], form.values),
        Item(scale_name(stored), STORED_AS[form.scale_dtype], form.scale),
    )

    def contents() -> Iterable[Tensor]:
        matrix = QuantizedMatrix.of(read(), bits)
        return matrix.values, matrix.scale

    return Piece(items, contents)


def _reader(stored: StoredTensor) -> Callable[[], Tensor]:
    """Reads a tensor as bfloat16. ValueError naming it if it is not finite: rounded, it would not show any more."""

    def read() -> Tensor:
        tensor = next(_mapped(stored)).to(torch.bfloat16)
        if not all_finite(tensor):
            raise ValueError(f"{stored.file}: tensor {stored.name} holds NaN or infinite values; it is damaged")
        return tensor

    return read


def _kept(stored: StoredTensor) -> Piece:
    """A tensor that is not quantized, in 16 bits."""
    if stored.dtype == "BF16":
        return Piece.of_stored(stored)
    return Piece((Item(stored.name, "BF16", stored.shape),), lambda: _mapped(stored))


def _mapped(stored: StoredTensor) -> Iterator[Tensor]:
    """The tensor as a view of its file, which is not mapped for longer than the tensor is in use."""
    with safe_open(stored.file, framework="pt") as file:
        check_unchanged(stored.file, stored.stamp)
        yield file.get_tensor(stored.name)


def check_quantize(target: Path, to: str) -> None:
    """What `quantize_checkpoint` refuses without looking at the source."""
    if to not in TARGETS:
        raise ValueError(f"--to is {to!r}, must be {' or '.join(TARGETS)}")
    check_target(target)


def check_target(target: Path) -> None:
    """ValueError where a new checkpoint in `target` would be mixed with what is there."""
    if target.exists() and not target.is_dir():
        raise ValueError(f"{target} is a file; name a new folder")
    # What a run that was killed left there may go.
    if target.is_dir() and (there := sorted({path.name for path in target.iterdir()} - {SAVING})):
        raise ValueError(f"{target} is not empty, it holds {there[0]}: name a new folder, or remove it first")


def _check_disk(target: Path, needed: int) -> None:
    there = next(folder for folder in (target.absolute(), *target.absolute().parents) if folder.exists())
    # What a run that was killed left is deleted before anything is written.
    left = sum(path.stat().st_blocks * 512 for path in (target / SAVING).glob("*"))
    free = shutil.disk_usage(there).free + left
    if needed > free:
        raise ValueError(
            f"{target} takes {needed / 1e9:.2f} GB, the disk has {free / 1e9:.2f} GB free: make room, or name a folder "
            "on another disk"
        )
