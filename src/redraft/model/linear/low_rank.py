"""What an adapter adds to the matrices of a model (LoRA, arXiv 2106.09685).

I inputs, O outputs, r rank, E experts.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Size, Tensor


@dataclass(frozen=True)
class LowRank:
    """What an adapter adds to one matrix, scale included: a [r, I] and b [O, r], or [E, r, I] and [E, O, r]."""

    a: Tensor
    b: Tensor

    @property
    def rank(self) -> int:
        return self.a.shape[-2]

    @property
    def delta_shape(self) -> Size:
        return Size((*self.b.shape[:-1], self.a.shape[-1]))

    def delta(self) -> Tensor:
        """Returns the change of the weights, [O, I] or [E, O, I]."""
        return self.b @ self.a


Matrices = Mapping[str, LowRank]
"""What an adapter adds, by the names of the matrices in `Transformer.state_dict`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AdapterMatrices:
    """What an adapter adds in each of the two passes, one object where both do the same; digest: of its content."""

    encoder: Matrices
    denoiser: Matrices
    digest: str
