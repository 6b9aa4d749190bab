"""Stopping: when a canvas is finished before its last denoising step.

C canvas length.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Stopping(Protocol):
    """Decides whether more steps would still change the canvas."""

    def stops(self, entropy: Tensor, drafts: Sequence[Tensor]) -> bool:
        """entropy [C] in nats of this step; the drafts int64 [C] of all steps so far, this one's last."""
        ...


@dataclass(frozen=True, kw_only=True)
class StableAndConfident:
    """Stops when the mean entropy is below `confidence` and the draft equals the `stability` drafts before it."""

    stability: int = 1
    confidence: float = 0.005

    def __post_init__(self) -> None:
        if self.stability < 0:
            raise ValueError(f"stability threshold is {self.stability}, must be at least 0")
        if not 0 < self.confidence < math.inf:
            raise ValueError(f"confidence threshold is {self.confidence}, must be above 0")

    def stops(self, entropy: Tensor, drafts: Sequence[Tensor]) -> bool:
        if len(drafts) <= self.stability or not float(entropy.mean()) < self.confidence:
            return False
        return all(torch.equal(drafts[-1], earlier) for earlier in drafts[-1 - self.stability : -1])


@dataclass(frozen=True, kw_only=True)
class EveryPositionConfident:
    """Stops as soon as no position's entropy is above `limit`: a step less where the first guess is sure."""

    limit: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.limit < math.inf:
            raise ValueError(f"entropy limit is {self.limit}, must be above 0")

    def stops(self, entropy: Tensor, drafts: Sequence[Tensor]) -> bool:
        return float(entropy.max()) <= self.limit
