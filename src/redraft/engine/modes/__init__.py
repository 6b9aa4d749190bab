"""Decoding modes: what a sequence wants of the next forward, and what follows from the result."""

import torch

from redraft.engine.modes.autoregressive import Autoregressive
from redraft.engine.modes.diffusion import Diffusion
from redraft.engine.modes.mode import DecodingMode, DecodingOutcome, WorkItem
from redraft.model.config import ModelConfig

__all__ = ["DecodingMode", "DecodingOutcome", "WorkItem", "decoding_modes"]


def decoding_modes(config: ModelConfig, device: torch.device) -> dict[str, DecodingMode]:
    """Returns the modes of a model, by the names that requests have for them (`request.MODE_NAMES`)."""
    return {"diffusion": Diffusion(config, device), "autoregressive": Autoregressive(config, device)}
