"""Quantized matrices that training runs through: their products have a gradient for what goes in, and stay as they are.

The weights are turned back a block at a time, in the forward pass and again in the backward pass, so that of each
matrix only the few bits are kept. n rows, I inputs, O outputs, E experts.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from redraft.model.layers import Experts
from redraft.model.linear.methods import MAX_DEQUANTIZED, multiply
from redraft.model.linear.quantized import QuantizedMatrix, is_quantized
from redraft.model.transformer import Transformer


def train_beside_quantized(model: Transformer) -> Transformer:
    """Lets a model whose matrices are quantized run and pass gradients on, in its plain form; returns it."""
    for name in model.config.parameter_shapes():
        if not is_quantized(name):
            continue
        path, _, leaf = name.rpartition(".")
        module = model.get_submodule(path)
        matrix = getattr(module, leaf)
        assert isinstance(matrix, QuantizedMatrix), f"{name} is not quantized"
        if isinstance(module, Experts):
            delattr(module, leaf)
            module.add_module(leaf, FrozenExperts(matrix))
        else:
            path, _, leaf = path.rpartition(".")
            model.get_submodule(path).add_module(leaf, FrozenLinear(matrix))
    return model


class FrozenLinear(nn.Module):
    """A product with a quantized matrix: x [n, I] → [n, O]."""

    values: Tensor
    scale: Tensor

    def __init__(self, matrix: QuantizedMatrix) -> None:
        super().__init__()
        self.bits, self.inputs = matrix.bits, matrix.inputs
        self.register_buffer("values", matrix.values)
        self.register_buffer("scale", matrix.scale)

    @property
    def matrix(self) -> QuantizedMatrix:
        return QuantizedMatrix(self.bits, self.inputs, self.values, self.scale)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, x: Tensor) -> Tensor:
        return _multiply(x, self.matrix)


class FrozenExperts(FrozenLinear):
    """Products with the quantized matrices of all experts."""

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, x: Tensor, shares: Sequence[int]) -> Tensor:
        """x [n, I] sorted by expert, of which each has its share → [n, O]."""
        parts = zip(torch.split(x, list(shares)), self.matrix, strict=True)
        return torch.cat([_multiply(rows, matrix) for rows, matrix in parts if rows.shape[0]])


def _multiply(x: Tensor, matrix: QuantizedMatrix) -> Tensor:
    kind = x.device.type
    x = x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x
    found: Tensor = _FrozenProduct.apply(x, matrix)  # type: ignore[no-untyped-call]
    return found


class _FrozenProduct(torch.autograd.Function):
    """x [n, I] · Wᵀ → [n, O] for a quantized W, with a gradient for x alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: QuantizedMatrix) -> Tensor:
        ctx.matrix = matrix
        parts = [multiply(x, block.dequantized(x.dtype)) for block in _blocks(matrix)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        blocks = list(_blocks(ctx.matrix))
        parts = torch.split(gradient, [block.values.shape[0] for block in blocks], dim=1)
        found = gradient.new_zeros(gradient.shape[0], ctx.matrix.inputs)
        for part, block in zip(parts, blocks, strict=True):
            found.addmm_(part, block.dequantized(gradient.dtype))
        return found, None


def _blocks(matrix: QuantizedMatrix) -> Iterator[QuantizedMatrix]:
    outputs = max(1, MAX_DEQUANTIZED // matrix.inputs)
    for values, scale in zip(torch.split(matrix.values, outputs), torch.split(matrix.scale, outputs), strict=True):
        yield QuantizedMatrix(matrix.bits, matrix.inputs, values, scale)
