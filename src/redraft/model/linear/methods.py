"""The linear methods that `prepare` chooses from: products with a matrix of weights, x [n, I] → [n, O].

n rows, I inputs, O outputs. Whatever the form, a row's result does not depend on the rows
beside it.
"""

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from redraft.model.batch import pad_rows
from redraft.model.linear.quantized import Matrix, QuantizedMatrix, quantized, rows_to_int8, unquantized
from redraft.model.native.kernels import Kernels

_LINEAR = torch.ops.mkldnn._linear_pointwise.default

MAX_DEQUANTIZED = 2**22
"""Quantized weights that are turned back to floats at a time.

Larger temporaries than a few MB are given back to the system after each use, and every page of the next one is a fault;
and a core's cache holds no more.
"""


MATRIX_ROWS, MATRIX_INPUTS = 64, 256
"""Where the processor multiplies matrices of bfloat16 by itself (AMX), oneDNN cuts sums over more inputs into parts,
how depends on the number of rows: so rows are multiplied in blocks of one size, for bits that do not."""


@functools.cache
def has_onednn(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether oneDNN's kernels, which torch brings along for CPUs, multiply in `dtype` here."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


def is_bfloat16_fast(device: torch.device) -> bool:
    """Whether products in bfloat16 are fast: on a GPU, and on a CPU with instructions for them.

    Without them they take ten times as long as in float32, or longer.
    """
    return device.type != "cpu" or has_onednn(device, torch.bfloat16)


def multiply(x: Tensor, weight: Tensor) -> Tensor:
    """x [n, I], weight [O, I] → [n, O], as `torch.nn.functional.linear`, but without gradients.

    torch gives float32 products to another library, which on some CPUs is half as fast as oneDNN (Zen 5: 105 and 240
    GFLOP/s on a core).
    """
    if not has_onednn(x.device, x.dtype):
        return F.linear(x, weight)
    if x.dtype == torch.bfloat16 and x.shape[1] > MATRIX_INPUTS and torch.cpu._is_amx_tile_supported():
        blocks = torch.split(pad_rows(x, MATRIX_ROWS), MATRIX_ROWS)
        found = [_LINEAR(block, weight, None, "none", [], "") for block in blocks]
        return (found[0] if len(found) == 1 else torch.cat(found))[: x.shape[0]]
    out: Tensor = _LINEAR(x, weight, None, "none", [], "")
    return out


class PlainLinear(nn.Module):
    """The weights [O, I] as they are."""

    weight: Tensor

    def __init__(self, weight: Matrix) -> None:
        super().__init__()
        self.register_buffer("weight", unquantized(weight).detach())

    def forward(self, x: Tensor) -> Tensor:
        return multiply(pad_rows(x), self.weight)[: x.shape[0]]


class PackedLinear(nn.Module):
    """Weights in the order in which oneDNN's kernels read them, instead of ordering them at each call.

    They take the place of the weights and as much memory, O and I filled up to whole blocks.
    """

    packed: Tensor

    def __init__(self, weight: Matrix) -> None:
        super().__init__()
        plain = unquantized(weight).detach().contiguous()
        self.register_buffer("packed", torch.ops.mkldnn._reorder_linear_weight(plain))

    def forward(self, x: Tensor) -> Tensor:
        return multiply(pad_rows(x), self.packed)[: x.shape[0]]


class Int8Linear(nn.Module):
    """Integer products: weights with a scale for each output, x with a scale for each row, found as it comes.

    The sums are exact, so that only the two roundings to 8 bits distinguish it from the plain product.
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, weight: Matrix, *, kernels: Kernels | None = None) -> None:
        super().__init__()
        self._kernels = kernels
        matrix = quantized(weight, 8)
        self.register_buffer("weight", matrix.values)
        self.register_buffer("scale", matrix.scale)

    def forward(self, x: Tensor) -> Tensor:
        if self._kernels is not None:
            rows, scale = self._kernels.quantize(x)
            return self._kernels.scale_sums(torch._int_mm(rows, self.weight.t()), scale, self.scale, x.dtype)
        rows, scale = rows_to_int8(x.float())
        sums = torch._int_mm(rows, self.weight.t())
        return (sums * scale * self.scale).to(x.dtype)


class WeightOnlyLinear(nn.Module):
    """Weights in 8 or 4 bits, turned back before each product: saves memory, not time."""

    values: Tensor
    scale: Tensor

    def __init__(self, weight: Matrix, bits: int) -> None:
        super().__init__()
        matrix = quantized(weight, bits)
        self.bits, self.inputs = bits, matrix.inputs
        self.register_buffer("values", matrix.values)
        self.register_buffer("scale", matrix.scale)

    def forward(self, x: Tensor) -> Tensor:
        rows = pad_rows(x)
        block = max(1, MAX_DEQUANTIZED // self.inputs)
        parts = [
            multiply(rows, QuantizedMatrix(self.bits, self.inputs, values, scale).dense(x.dtype))
            for values, scale in zip(torch.split(self.values, block), torch.split(self.scale, block), strict=True)
        ]
        out = (parts[0] if len(parts) == 1 else torch.cat(parts, dim=1))[: x.shape[0]]
        # Whole numbers up to 127 are exact in any dtype; an output's one scale can wait until it is summed.
        return (out * self.scale).to(x.dtype) if self.bits == 8 else out
