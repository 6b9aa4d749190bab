"""Acceptance: which positions of a canvas keep their sample after a denoising step.

C canvas length.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Acceptance(Protocol):
    """Decides which positions are sure enough."""

    def accept(self, entropy: Tensor, step: int, steps: int) -> Tensor:
        """entropy [C] in nats, with `step` of `steps` steps to go → bool [C], true where the sample stays."""
        ...


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

    def accept(self, entropy: Tensor, step: int, steps: int) -> Tensor:
        """As the Protocol says, and for many canvases at once: entropy [..., C] → bool [..., C]."""
        ascending, order = entropy.sort(dim=-1, stable=True)
        chosen = ascending.cumsum(-1) - ascending <= self.bound
        return torch.zeros_like(chosen).scatter(-1, order, chosen)


@dataclass(frozen=True, kw_only=True)
class LinearQuota:
    """Accepts a share of the positions that grows evenly with the steps, the surest first (as LLaDA, arXiv:2502.09992).

    Spends all steps unless stopping ends them; the quality of the guess does not change the pace.
    """

    def accept(self, entropy: Tensor, step: int, steps: int) -> Tensor:
        quota = math.ceil(entropy.shape[0] * (steps - step + 1) / steps)
        order = entropy.argsort(stable=True)
        accepted = torch.zeros_like(entropy, dtype=torch.bool)
        accepted[order[:quota]] = True
        return accepted
