"""Quantized checkpoints of any shape with random weights: to see what a model takes without having it."""

from pathlib import Path

import torch
from torch import Tensor

from redraft.model import ModelConfig
from redraft.model.linear.quantized import Form, is_quantized
from redraft.weights.checkpoint import STORED_AS
from redraft.weights.quantize import TARGETS, Report, check_quantize, write_quantized
from redraft.weights.storage.names import checkpoint_name, scale_name
from redraft.weights.storage.shards import Item, Piece


def write_synthetic(target: Path, config: ModelConfig, to: str, report: Report | None = None) -> None:
    """Writes a checkpoint of `config` in "int8" or "int4" to the new folder `target`, tensor by tensor.

    Values are uniform, with scales that keep products the size of what comes in; norms and scalars are 1. There is no
    tokenizer. Errors are those of `quantize_checkpoint`.
    """
    check_quantize(target, to)
    bits = TARGETS[to]
    generator = torch.Generator().manual_seed(0)
    pieces = [_piece(name, shape, bits, generator) for name, shape in config.parameter_shapes().items()]
    write_quantized(target, config, pieces, bits, {}, lambda staging: None, report)


def _piece(name: str, shape: tuple[int, ...], bits: int, generator: torch.Generator) -> Piece:
    stored = checkpoint_name(name)
    if not is_quantized(name):
        return Piece((Item(stored, "BF16", shape),), lambda: (_plain(shape, generator),))
    form = Form.of(shape, bits)
    items = (
        Item(stored, STORED_AS[form.values_dtype], form.values),
        Item(scale_name(stored), STORED_AS[form.scale_dtype], form.scale),
    )
    # Of uniform whole numbers below 2**bits the standard deviation is 2**bits / sqrt(12).
    step = shape[-1] ** -0.5 * 12**0.5 / 2**bits

    def contents() -> tuple[Tensor, Tensor]:
        values = torch.empty(form.values, dtype=form.values_dtype).random_(*_range(bits), generator=generator)
        return values, torch.full(form.scale, step, dtype=form.scale_dtype)

    return Piece(items, contents)


def _range(bits: int) -> tuple[int, int]:
    """Bounds of random bytes: two values of 4 bits, or one of 8."""
    return (-128, 128) if bits == 8 else (0, 256)


def _plain(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    if len(shape) < 2:
        return torch.ones(shape)
    return torch.empty(shape, dtype=torch.bfloat16).normal_(std=shape[-1] ** -0.5, generator=generator)
