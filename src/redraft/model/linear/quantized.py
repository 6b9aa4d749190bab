"""Matrices in 8 or 4 bits: which are kept so, how they are rounded, and the form they have in files and in memory.

O outputs, I inputs, G groups of GROUP inputs, the last of them filled up; dots stand for experts, where there are any.

| bits | values | scale | a weight is |
|---|---|---|---|
| 8 | int8 [..., O, I] | float32 [..., O] | value × its output's scale |
| 4 | uint8 [..., O, G · GROUP/2] | bfloat16 [..., O, G] | (value − 8) × its group's scale |

Of 4 bits, a group's first half lies in the lower halves of its bytes and its second half in the upper ones, so that it
is unpacked without weaving the two.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BITS = (8, 4)
"""In which a matrix can be quantized."""

GROUP = 64
"""Inputs of a row that share a scale in 4 bits. In 8 bits all of them do: it costs no quality that can be measured, and
it lets integers be multiplied with integers."""

_QUANTIZED = re.compile(
    r"(layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)|self_conditioning\.(gate|up|down)_proj)\.weight"
    r"|layers\.\d+\.experts\.(gate_up|down)_proj"
)


def is_quantized(name: str) -> bool:
    """Whether a quantized model keeps the tensor `name` (of `Transformer.state_dict`) in few bits.

    Those are the matrices that `prepare` makes products of. Norms, scalars and routers stay as they are: they are
    small, and a router that is off sends tokens to other experts. So does the embedding, which the readout streams.
    """
    return _QUANTIZED.fullmatch(name) is not None


@dataclass(frozen=True)
class Form:
    """Shapes and dtypes of a quantized tensor."""

    values: tuple[int, ...]
    values_dtype: torch.dtype
    scale: tuple[int, ...]
    scale_dtype: torch.dtype

    @classmethod
    def of(cls, shape: Sequence[int], bits: int) -> "Form":
        """That of a tensor of `shape` [..., O, I]."""
        assert bits in BITS
        *rows, inputs = shape
        if bits == 8:
            return cls(tuple(shape), torch.int8, tuple(rows), torch.float32)
        groups = math.ceil(inputs / GROUP)
        return cls((*rows, groups * GROUP // 2), torch.uint8, (*rows, groups), torch.bfloat16)

    @property
    def num_bytes(self) -> int:
        return math.prod(self.values) + math.prod(self.scale) * self.scale_dtype.itemsize


@dataclass(frozen=True)
class QuantizedMatrix:
    """A matrix, or the stacked ones of all experts, in the form that the module's table gives."""

    bits: int
    inputs: int
    values: Tensor
    scale: Tensor

    @classmethod
    def of(cls, weight: Tensor, bits: int) -> "QuantizedMatrix":
        """Rounds weight [..., O, I]; of stacked ones one after the other, since it takes several times their memory."""
        form = Form.of(weight.shape, bits)
        values = weight.new_empty(form.values, dtype=form.values_dtype)
        scale = weight.new_empty(form.scale, dtype=form.scale_dtype)
        if weight.dim() > 2:
            parts = zip(weight.detach(), values, scale, strict=True)
        else:
            parts = zip((weight.detach(),), (values,), (scale,), strict=True)
        for one, its_values, its_scale in parts:
            (_to_int8 if bits == 8 else _to_int4)(one.float(), its_values, its_scale)
        return cls(bits, weight.shape[-1], values, scale)

    def __iter__(self) -> Iterator["QuantizedMatrix"]:
        """The single ones of stacked matrices, without a copy."""
        for values, scale in zip(self.values, self.scale, strict=True):
            yield QuantizedMatrix(self.bits, self.inputs, values, scale)

    def dense(self, dtype: torch.dtype) -> Tensor:
        """The weights [O, I] that a single matrix stands for; of 8 bits without their scale, as whole numbers."""
        if self.bits == 8:
            return self.values.to(dtype)
        grouped = self.values.unflatten(-1, (-1, GROUP // 2))  # type: ignore[no-untyped-call]
        whole = torch.cat((grouped & 15, grouped >> 4), dim=-1).view(torch.int8).sub_(8)
        weights = whole.to(dtype).mul_(self.scale[..., None].to(dtype)).flatten(1)
        # A part of longer rows has no kernel that is fast: products with it take a thousand times as long.
        return weights[:, : self.inputs].contiguous()

    def dequantized(self, dtype: torch.dtype) -> Tensor:
        """The weights [O, I] that a single matrix stands for."""
        weights = self.dense(dtype)
        return weights.mul_(self.scale[:, None].to(dtype)) if self.bits == 8 else weights


Matrix = Tensor | QuantizedMatrix


def quantized(weight: Matrix, bits: int) -> QuantizedMatrix:
    """`weight` in so many bits. ValueError if it has been rounded to others before."""
    if isinstance(weight, Tensor):
        return QuantizedMatrix.of(weight, bits)
    if weight.bits != bits:
        raise ValueError(f"the weights are stored in {weight.bits} bits, this precision needs them in {bits}")
    return weight


def unquantized(weight: Matrix) -> Tensor:
    """`weight` if it is not quantized, else ValueError: what was rounded does not come back."""
    if isinstance(weight, Tensor):
        return weight
    raise ValueError(f"the weights are stored in {weight.bits} bits, this precision needs them unquantized")


def concat_outputs(weights: Sequence[Matrix]) -> Matrix:
    """Matrices of the same inputs under each other, as one with the outputs of all."""
    first = weights[0]
    if isinstance(first, Tensor):
        return torch.cat([one for one in weights if isinstance(one, Tensor)])
    others = [one for one in weights if isinstance(one, QuantizedMatrix)]
    return QuantizedMatrix(
        first.bits, first.inputs, torch.cat([one.values for one in others]), torch.cat([one.scale for one in others])
    )


def set_matrix(model: nn.Module, name: str, matrix: QuantizedMatrix) -> None:
    """Takes `matrix` for the parameter `name` of a model, which then can be prepared, and nothing else."""
    parent, _, leaf = name.rpartition(".")
    module = model.get_submodule(parent)
    delattr(module, leaf)
    setattr(module, leaf, matrix)


def rows_to_int8(x: Tensor) -> tuple[Tensor, Tensor]:
    """x float32 [n, I] → int8 [n, I] and its scale float32 [n, 1]; a row with a value that is not finite has no scale.

    Its products are NaN then, as they would be in float32.
    """
    scale = x.abs().amax(dim=-1, keepdim=True) / 127
    scale = torch.where(scale.isfinite(), scale, torch.nan)
    return (x / scale).nan_to_num(0.0).round_().to(torch.int8), scale


def _to_int8(weight: Tensor, values: Tensor, scale: Tensor) -> None:
    rounded, found = rows_to_int8(weight)
    values.copy_(rounded)
    scale.copy_(found[:, 0])


def _to_int4(weight: Tensor, values: Tensor, scale: Tensor) -> None:
    grouped = F.pad(weight, (0, -weight.shape[1] % GROUP)).unflatten(1, (-1, GROUP))  # type: ignore[no-untyped-call]
    # In 16 bits, as it is kept, before the values are rounded with it.
    found = (grouped.abs().amax(dim=-1, keepdim=True) / 7).bfloat16()
    rounded = (grouped / found.float()).nan_to_num(0.0).round_().clamp_(-8, 7).add_(8).to(torch.uint8)
    low, high = rounded.chunk(2, dim=-1)
    values.copy_((low | high << 4).flatten(1))
    scale.copy_(found[..., 0])
