"""Products with a matrix of weights, x [n, I] → [n, O], in the forms that `prepare` chooses from.

n rows, I inputs, O outputs, g inputs that share a scale. Whatever the form, a row's result does not depend on the rows
beside it.
"""

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from redraft.model.native.kernels import Kernels

MIN_ROWS = 8
"""Products are filled up to so many rows: below, other kernels are taken, and a row would depend on its neighbours."""

_LINEAR = torch.ops.mkldnn._linear_pointwise.default

GROUP = 64
"""Inputs of a row that share a scale where weights alone are quantized; the last group of a row may be shorter."""


@functools.cache
def has_kernels(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether oneDNN's kernels, which torch brings along for CPUs, multiply in `dtype` here."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


def multiply(x: Tensor, weight: Tensor) -> Tensor:
    """x [n, I], weight [O, I] → [n, O], as `torch.nn.functional.linear`, but without gradients.

    torch gives float32 products to another library, which on some CPUs is half as fast as oneDNN (Zen 5: 105 and 240
    GFLOP/s on a core).
    """
    if not has_kernels(x.device, x.dtype):
        return F.linear(x, weight)
    out: Tensor = _LINEAR(x, weight, None, "none", [], "")
    return out


def filled(x: Tensor) -> Tensor:
    """x [n, I] with rows of zeros after it up to MIN_ROWS."""
    missing = MIN_ROWS - x.shape[0]
    return F.pad(x, (0, 0, 0, missing)) if missing > 0 else x


class PlainProduct(nn.Module):
    """The weights [O, I] as they are."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        return multiply(filled(x), self.weight)[: x.shape[0]]


class PackedProduct(nn.Module):
    """Weights in the order in which oneDNN's kernels read them, instead of ordering them at each call.

    They take the place of the weights and as much memory, O and I filled up to whole blocks.
    """

    packed: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("packed", torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous()))

    def forward(self, x: Tensor) -> Tensor:
        return multiply(filled(x), self.packed)[: x.shape[0]]


class Int8Product(nn.Module):
    """Integer products: weights with a scale for each output, x with a scale for each row, found as it comes.

    The sums are exact, so that only the two roundings to 8 bits distinguish it from the plain product.
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor, *, kernels: Kernels | None = None) -> None:
        super().__init__()
        self._kernels = kernels
        quantized, scale = to_int8(weight.detach().float())
        self.register_buffer("weight", quantized)
        self.register_buffer("scale", scale[:, 0])

    def forward(self, x: Tensor) -> Tensor:
        if self._kernels is not None:
            quantized, scale = self._kernels.quantize(x)
            return self._kernels.scale_sums(torch._int_mm(quantized, self.weight.t()), scale, self.scale, x.dtype)
        quantized, scale = to_int8(x.float())
        sums = torch._int_mm(quantized, self.weight.t())
        return (sums * scale * self.scale).to(x.dtype)


class WeightOnlyProduct(nn.Module):
    """Weights in 8 or 4 bits, a scale for each group of GROUP inputs, turned back before each product: saves memory.

    Two values of 4 bits share a byte, the first in its lower half. They are stored with 8 added, as -8 … 7 → 0 … 15.
    """

    values: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor, bits: int) -> None:
        super().__init__()
        assert bits in (4, 8)
        self.bits = bits
        self.inputs = weight.shape[1]
        self.dtype = weight.dtype
        grouped = F.pad(weight.detach().float(), (0, -self.inputs % GROUP)).unflatten(1, (-1, GROUP))  # type: ignore[no-untyped-call]
        highest = 2 ** (bits - 1) - 1
        # In 16 bits, as it is kept, before the values are rounded with it.
        scale = (grouped.abs().amax(dim=-1, keepdim=True) / highest).bfloat16()
        values = (grouped / scale.float()).nan_to_num(0.0).round().clamp(-highest - 1, highest).to(torch.int8)
        if bits == 4:
            low, high = (values + 8).to(torch.uint8).view(*values.shape[:-1], GROUP // 2, 2).unbind(-1)
            values = low | high << 4
        self.register_buffer("values", values)
        self.register_buffer("scale", scale)

    def dense(self) -> Tensor:
        """The weights [O, I] as they are multiplied with."""
        values = self.values
        if self.bits == 4:
            values = torch.stack((values & 15, values >> 4), dim=-1).flatten(-2).to(torch.int8) - 8
        return (values.to(self.dtype) * self.scale.to(self.dtype)).flatten(1)[:, : self.inputs]

    def forward(self, x: Tensor) -> Tensor:
        return multiply(filled(x), self.dense())[: x.shape[0]]


def to_int8(x: Tensor) -> tuple[Tensor, Tensor]:
    """x float32 [n, I] → int8 [n, I] and its scale float32 [n, 1]; a row with a value that is not finite has no scale.

    Its products are NaN then, as they would be in float32.
    """
    scale = x.abs().amax(dim=-1, keepdim=True) / 127
    scale = torch.where(scale.isfinite(), scale, torch.nan)
    return (x / scale).nan_to_num(0.0).round_().to(torch.int8), scale
