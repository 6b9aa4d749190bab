"""The temperature of each denoising step."""

from dataclasses import dataclass

LOWEST = 1e-6
"""Below it, logits / temperature would leave float32's range."""


@dataclass(frozen=True, kw_only=True)
class LinearTemperature:
    """t_min + (t_max - t_min) · s / S for steps s = S … 1, so the last step stands a little above t_min."""

    t_min: float = 0.4
    t_max: float = 0.8

    def __post_init__(self) -> None:
        if not 0 < self.t_min <= self.t_max < float("inf"):
            raise ValueError(f"t_min {self.t_min} and t_max {self.t_max} must satisfy 0 < t_min <= t_max")
        if self.t_min < LOWEST:
            raise ValueError(
                f"t_min is {self.t_min}, must be at least {LOWEST}; temperature 0 takes the argmax instead"
            )

    def at(self, step: int, steps: int) -> float:
        """The temperature with `step` of `steps` steps to go, this one included."""
        return self.t_min + (self.t_max - self.t_min) * step / steps
