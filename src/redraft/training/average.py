"""The exponential moving average of a model's weights during training."""

import torch
from torch import Tensor, nn


class WeightAverage:
    """An exponential moving average of a model's parameters.

    The decay is smaller in the first steps, so that the initial weights are soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.parameters = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Moves towards the model's parameters after update number `step`, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, parameter in model.named_parameters():
            self.parameters[name].lerp_(parameter, 1 - decay)

    def state_dict(self, model: nn.Module) -> dict[str, Tensor]:
        """Returns the model's state with the averages in place of the parameters."""
        return {**model.state_dict(), **self.parameters}
