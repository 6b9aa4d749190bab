"""Writes quantized checkpoints.

They have the released layout, with integers in place of the matrices, their scales beside them (in the format of
`model/linear/quantized.py`), and `quantization_config` in config.json. One tensor at a time is in memory; the source is
memory-mapped.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from redraft.model.config import ModelConfig
from redraft.model.linear.quantized import Form, QuantizedMatrix, is_quantized
from redraft.model.precision import PRECISIONS
from redraft.utils.json_files import json_bytes
from redraft.weights.checkpoint import DTYPE_NAMES, Checkpoint, all_finite, check_unchanged
from redraft.weights.config.file import (
    QUANTIZATION_KEY,
    config_to_json,
    quantization_json,
)
from redraft.weights.config.keys import CONFIG_FILE
from redraft.weights.save import copy_companions, record_dtype
from redraft.weights.storage.header import StoredTensor
from redraft.weights.storage.names import checkpoint_name, scale_name
from redraft.weights.storage.publish import check_disk, check_new_folder, staged, write_synced
from redraft.weights.storage.shards import Report, TensorGroup, TensorSpec, write_shards

TARGETS = {one.stored: one.weight_bits for one in PRECISIONS if one.is_quantized}
"""The forms that a checkpoint can be quantized to, and their bits per weight."""


def quantize_checkpoint(source: Path | str, target: Path | str, to: str, report: Report | None = None) -> None:
    """Quantizes the matrices of the checkpoint in `source` to "int8" or "int4" and writes it to a new folder, `target`.

    Weights are rounded from bfloat16, so that the stored values are those that loading `source` in that precision
    gives. Raises ValueError, before anything is written, for an unknown `to`, a quantized source, a target that is not
    empty and a disk with too little space. If interrupted, it leaves nothing in `target`.
    """
    source, target = Path(source), Path(target)
    check_quantize(target, to)
    checkpoint = Checkpoint.open(source)
    checkpoint.check_unquantized()
    bits = TARGETS[to]
    # In stored order, so that the source is read once from start to end.
    tensors = sorted(checkpoint.tensors.items(), key=lambda one: (one[1].file, one[1].start))
    groups = [
        quantized_group(name, Form.of(one.shape, bits), partial(_quantize, one, bits))
        if is_quantized(name)
        else _unquantized_group(one)
        for name, one in tensors
    ]
    groups += map(TensorGroup.of_stored, checkpoint.unused.values())
    companions = partial(copy_companions, source)
    write_quantized(target, checkpoint.config, groups, bits, dict(checkpoint.original), companions, report)


def write_quantized(
    target: Path,
    config: ModelConfig,
    groups: list[TensorGroup],
    bits: int,
    original: dict[str, object],
    companions: Callable[[Path], None],
    report: Report | None = None,
) -> None:
    """Publishes a quantized checkpoint of `groups` in `target`; `companions` writes its other files into a folder."""
    check_disk(target, sum(group.num_bytes for group in groups))
    with staged(target) as staging:
        write_shards(staging, groups, report=report)
        companions(staging)
        content = config_to_json(config, record_dtype(original, {"BF16"})) | {QUANTIZATION_KEY: quantization_json(bits)}
        write_synced(staging / CONFIG_FILE, json_bytes(content))


def quantized_group(name: str, form: Form, contents: Callable[[], tuple[Tensor, Tensor]]) -> TensorGroup:
    """Builds the group of the matrix `name` (our name), whose values and scales `contents` returns."""
    stored = checkpoint_name(name)
    items = (
        TensorSpec(stored, DTYPE_NAMES[form.values_dtype], form.values),
        TensorSpec(scale_name(stored), DTYPE_NAMES[form.scale_dtype], form.scale),
    )
    return TensorGroup(items, contents)


def _quantize(stored: StoredTensor, bits: int) -> tuple[Tensor, Tensor]:
    tensor = next(_mapped(stored)).to(torch.bfloat16)
    if not all_finite(tensor):
        raise ValueError(f"{stored.file}: tensor {stored.name} holds NaN or infinite values; the checkpoint is damaged")
    matrix = QuantizedMatrix.of(tensor, bits)
    return matrix.values, matrix.scale


def _unquantized_group(stored: StoredTensor) -> TensorGroup:
    """Builds the group of a tensor that is not quantized; it is stored as bfloat16."""
    if stored.dtype == "BF16":
        return TensorGroup.of_stored(stored)
    return TensorGroup((TensorSpec(stored.name, "BF16", stored.shape),), lambda: _mapped(stored))


def _mapped(stored: StoredTensor) -> Iterator[Tensor]:
    """Yields the tensor as a view of its file, which stays mapped only while the tensor is in use."""
    with safe_open(stored.file, framework="pt") as file:
        check_unchanged(stored.file, stored.stamp)
        yield file.get_tensor(stored.name)


def check_quantize(target: Path, to: str) -> None:
    """Raises the errors of `quantize_checkpoint` that do not depend on the source."""
    if to not in TARGETS:
        raise ValueError(f"to is {to!r}, must be {' or '.join(TARGETS)}")
    check_new_folder(target)
