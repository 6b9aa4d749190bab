"""Random low-rank adapters, and the model that they make of a base."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from redraft.model.config import ModelConfig
from redraft.model.linear.low_rank import AdapterMatrices, LowRank, Matrices
from redraft.weights.adapters.files import fingerprint, write_adapter
from redraft.weights.checkpoint import Checkpoint

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


def held_adapter(encoder: Matrices, denoiser: Matrices | None = None) -> AdapterMatrices:
    """An adapter for the bank, that does the same in both passes unless `denoiser` is given."""
    denoiser = encoder if denoiser is None else denoiser
    parts = [part for one in (encoder, denoiser) for low in one.values() for part in (low.a, low.b)]
    content = b"".join(part.contiguous().numpy().tobytes() for part in parts)
    return AdapterMatrices(encoder=encoder, denoiser=denoiser, digest=hashlib.sha256(content).hexdigest())


def adapter_folder(folder: Path, checkpoint: Path, seed: int, *, base: str | None = None, **options: Any) -> Path:
    """Writes a random adapter for a checkpoint; `base` stands for its fingerprint if given."""
    opened = Checkpoint.open(checkpoint)
    matrices = random_adapter(opened.config, seed, **options)
    write_adapter(folder, matrices, rank=4, alpha=4, base="tiny", base_fingerprint=base or fingerprint(opened))
    return folder


def merged(state: Mapping[str, Tensor], adapter: Matrices) -> dict[str, Tensor]:
    """The weights with what the adapter adds to them."""
    return {name: one + adapter[name].delta() if name in adapter else one for name, one in state.items()}
