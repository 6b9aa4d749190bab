"""Random low-rank adapters, and the model that they make of a base."""

from collections.abc import Mapping

import torch
from torch import Tensor

from redraft.model.config import ModelConfig
from redraft.model.linear.adapters import LowRank, Matrices

DENSE = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def random_adapter(
    config: ModelConfig, seed: int, *, rank: int = 4, size: float = 0.3, targets: tuple[str, ...] = (*DENSE, "experts")
) -> Matrices:
    """An adapter of `rank` for every matrix whose name has a part of `targets`; `size` is that of the change."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, shape in config.parameter_shapes().items():
        if len(shape) < 2 or not any(part in name for part in targets):
            continue
        *stack, outputs, inputs = shape
        a = torch.randn(*stack, rank, inputs, generator=generator) / inputs**0.5
        found[name] = LowRank(a, size * torch.randn(*stack, outputs, rank, generator=generator) / rank**0.5)
    return found


def merged(state: Mapping[str, Tensor], adapter: Matrices) -> dict[str, Tensor]:
    """The weights with what the adapter adds to them."""
    return {name: one + adapter[name].delta() if name in adapter else one for name, one in state.items()}
