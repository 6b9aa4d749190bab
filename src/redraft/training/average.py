"""The moving average of a model's weights over its training."""

import torch
from torch import Tensor, nn


class Average:
    """The exponential moving average of a model's parameters: what its checkpoints hold where a recipe asks for it.

    In the first steps it forgets faster, so that the initial weights are soon gone.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.parameters = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Moves towards the parameters that update number `step`, counted from 0, has made."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, parameter in model.named_parameters():
            self.parameters[name].lerp_(parameter, 1 - decay)

    def state_dict(self, model: nn.Module) -> dict[str, Tensor]:
        """The model's state with averages for parameters."""
        return {**model.state_dict(), **self.parameters}
