"""Acceptance: which positions of a canvas keep their sample after a denoising step.

B canvases, C canvas length. A rule's own numbers may be tensors [B, 1], one for each canvas (`sampler.stacked`).
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Acceptance(Protocol):
    """Decides which positions are sure enough."""

    def accept(self, entropy: "Tensor", step: "Tensor", steps: "Tensor", pinned: "Tensor | int" = 0) -> "Tensor":
        """Returns bool [B, C], true where the sample stays.

        entropy float32 [B, C] in nats, 0 at pinned positions; step and steps int64 [B]: of how many steps how many are
        to go, this one included; pinned int64 [B]: how many positions are.
        """


@dataclass(frozen=True, kw_only=True)
class EntropyBound:
    """Accepts the k positions of lowest entropy with ΣH - max H <= bound.

    The left side bounds how far their joint distribution is from independence (arXiv:2505.24857). The surest position
    is always accepted.
    """

    bound: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.bound < math.inf:
            raise ValueError(f"entropy bound is {self.bound}, must be at least 0")

    def accept(self, entropy: "Tensor", step: "Tensor", steps: "Tensor", pinned: "Tensor | int" = 0) -> "Tensor":
        # What is pinned comes first, and takes nothing of the bound.
        ascending, order = entropy.sort(dim=-1, stable=True)
        chosen = ascending.cumsum(-1) - ascending <= self.bound
        return chosen.new_zeros(chosen.shape).scatter(-1, order, chosen)


@dataclass(frozen=True, kw_only=True)
class LinearQuota:
    """Accepts a share of the positions that grows evenly with the steps, the surest first (as LLaDA, arXiv:2502.09992).

    Spends all steps unless stopping ends them; the quality of the guess does not change the pace.
    """

    def accept(self, entropy: "Tensor", step: "Tensor", steps: "Tensor", pinned: "Tensor | int" = 0) -> "Tensor":
        # In whole numbers: the ceiling of C · (S - s + 1) / S, and what is pinned beside it.
        quota = pinned - (pinned - entropy.shape[-1]) * (steps - step + 1) // steps
        rank = entropy.argsort(dim=-1, stable=True).argsort(dim=-1)
        return rank < quota[:, None]
