"""Stopping: when a canvas is finished before its last denoising step.

B canvases, C canvas length. A rule's own numbers may be tensors [B], one for each canvas (`sampler.stacked`).
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Stopping(Protocol):
    """Decides whether more steps would still change a canvas."""

    def stops(self, entropy: "Tensor", unchanged: "Tensor") -> "Tensor":
        """Returns bool [B], true where a canvas is finished.

        entropy float32 [B, C] of this step in nats; unchanged int64 [B]: how many drafts in a row, up to the one before
        this step's, equal this step's.
        """


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

    def stops(self, entropy: "Tensor", unchanged: "Tensor") -> "Tensor":
        return (entropy.mean(dim=-1).double() < self.confidence) & (unchanged >= self.stability)


@dataclass(frozen=True, kw_only=True)
class EveryPositionConfident:
    """Stops as soon as no position's entropy is above `limit`: a step less where the first guess is sure."""

    limit: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.limit < math.inf:
            raise ValueError(f"entropy limit is {self.limit}, must be above 0")

    def stops(self, entropy: "Tensor", unchanged: "Tensor") -> "Tensor":
        return entropy.amax(dim=-1).double() <= self.limit
