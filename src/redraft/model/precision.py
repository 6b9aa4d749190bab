"""The precisions that a model can run in. Does not import torch, so that help and refusals need not wait for it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Precision:
    """A way to run a model: how the layers' matrices are held, and what they are multiplied in.

    compute: torch's name of the dtype of everything else. weight_bits, activation_bits: what a product of a layer
    takes of weights and rows. stored: the name of the form that its weights have in a checkpoint.
    """

    name: str
    compute: str
    weight_bits: int
    activation_bits: int
    stored: str

    @classmethod
    def named(cls, name: str) -> "Precision":
        """Returns the one of PRECISIONS with that name; ValueError for another."""
        for precision in PRECISIONS:
            if precision.name == name:
                return precision
        raise ValueError(f"precision is {name!r}, must be {precision_choices()}")

    @classmethod
    def of_bits(cls, bits: int) -> tuple["Precision", ...]:
        """Returns those that a checkpoint quantized to so many bits can run in, the preferred one first."""
        return tuple(one for one in PRECISIONS if one.is_quantized and one.weight_bits == bits)

    @property
    def dtype(self) -> "torch.dtype":
        """The dtype in which weights that are not quantized are read."""
        import torch

        found: torch.dtype = getattr(torch, self.compute)
        return found

    @property
    def is_quantized(self) -> bool:
        """Whether the layers' matrices are rounded to fewer bits than the dtype has."""
        return self.weight_bits < 16

    @property
    def is_integer(self) -> bool:
        """Whether products are of integers; there are such on the CPU only."""
        return self.activation_bits < 16

    @property
    def is_weight_only(self) -> bool:
        """Whether weights are turned back before each product."""
        return self.weight_bits < self.activation_bits


PRECISIONS = (
    Precision(name="float32", compute="float32", weight_bits=32, activation_bits=32, stored="float32"),
    Precision(name="bf16", compute="bfloat16", weight_bits=16, activation_bits=16, stored="bfloat16"),
    Precision(name="int8", compute="bfloat16", weight_bits=8, activation_bits=8, stored="int8"),
    Precision(name="int8-weight-only", compute="bfloat16", weight_bits=8, activation_bits=16, stored="int8"),
    Precision(name="int4-weight-only", compute="bfloat16", weight_bits=4, activation_bits=16, stored="int4"),
)
"""Another one is another line here, and its linear method in preparation.py."""


def check_precision(name: str) -> None:
    """Raises ValueError for a name that is neither "auto" nor that of a precision."""
    if name not in ("auto", *(one.name for one in PRECISIONS)):
        raise ValueError(f"precision is {name!r}, must be {precision_choices('auto')}")


def precision_choices(*others: str) -> str:
    """Lists the names of all precisions, after those of `others`, as a sentence has them."""
    *names, last = *others, *(one.name for one in PRECISIONS)
    return f"{', '.join(names)} or {last}"
