"""Writes quantized checkpoints with random weights, to measure what a model needs without having it."""

from pathlib import Path

import torch
from torch import Tensor

from redraft.model.config import ModelConfig
from redraft.model.linear.quantized import Form, is_quantized
from redraft.weights.quantize import TARGETS, check_quantize, quantized_group, write_quantized
from redraft.weights.storage.names import checkpoint_name
from redraft.weights.storage.shards import Report, TensorGroup, TensorSpec


def write_synthetic(target: Path, config: ModelConfig, to: str, report: Report | None = None) -> None:
    """Writes a checkpoint of `config` in "int8" or "int4" to the new folder `target`, one tensor at a time.

    Values are uniform, with scales that keep the size of activations; norms and scalars are 1. There is no tokenizer.
    Raises the errors of `quantize_checkpoint`.
    """
    check_quantize(target, to)
    bits = TARGETS[to]
    generator = torch.Generator().manual_seed(0)
    groups = [_piece(name, shape, bits, generator) for name, shape in config.parameter_shapes().items()]
    write_quantized(target, config, groups, bits, {}, lambda staging: None, report)


def _piece(name: str, shape: tuple[int, ...], bits: int, generator: torch.Generator) -> TensorGroup:
    if not is_quantized(name):
        return TensorGroup((TensorSpec(checkpoint_name(name), "BF16", shape),), lambda: (_plain(shape, generator),))
    form = Form.of(shape, bits)
    # Random bytes hold two 4-bit values or one 8-bit value.
    low, high = (-128, 128) if bits == 8 else (0, 256)
    # Uniform integers below 2**bits have a standard deviation of 2**bits / sqrt(12).
    step = shape[-1] ** -0.5 * 12**0.5 / 2**bits

    def contents() -> tuple[Tensor, Tensor]:
        values = torch.empty(form.values, dtype=form.values_dtype).random_(low, high, generator=generator)
        return values, torch.full(form.scale, step, dtype=form.scale_dtype)

    return quantized_group(name, form, contents)


def _plain(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    if len(shape) < 2:
        return torch.ones(shape)
    return torch.empty(shape, dtype=torch.bfloat16).normal_(std=shape[-1] ** -0.5, generator=generator)
