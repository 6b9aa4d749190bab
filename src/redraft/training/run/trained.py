"""What a run trains and its checkpoints hold: all weights of a model, or a low-rank adapter beside them.

r rank, I inputs, O outputs, E experts.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from redraft.model.layers import Experts, grouped_linear
from redraft.model.linear.low_rank import LowRank
from redraft.model.transformer import Transformer
from redraft.training.run.processes import count, holding, take
from redraft.training.settings import LoRASettings, lora_targets
from redraft.weights.adapters.files import read_adapter, write_adapter
from redraft.weights.checkpoint import Checkpoint
from redraft.weights.save import save_checkpoint


class Trained(Protocol):
    """What is trained."""

    @property
    def model(self) -> Transformer:
        """What the objective runs."""

    @property
    def module(self) -> nn.Module:
        """Has the parameters that are trained, and no others."""

    def begin(self, step: int) -> None:
        """Begins a step of the training; all its random numbers follow from the step."""

    def write(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        """Writes the files of a checkpoint with `weights`, which have the names of the module's parameters."""

    def read(self, folder: Path) -> None:
        """Takes the weights of a checkpoint. ValueError where it belongs to another model or adapter."""

    def validated(self, weights: Mapping[str, Tensor] | None) -> AbstractContextManager[Transformer]:
        """Gives the model that is to be validated, for a while; `weights` take the place of what is trained."""


class WholeModel:
    """All weights of a model."""

    def __init__(self, model: Transformer) -> None:
        self.model = model

    @property
    def module(self) -> Transformer:
        return self.model

    def begin(self, step: int) -> None:
        pass

    def write(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        save_checkpoint(folder, self.model.config, weights)

    def read(self, folder: Path) -> None:
        checkpoint, model = Checkpoint.open(folder), self.model
        if checkpoint.config != model.config:
            raise ValueError(f"{folder} holds a model of a different shape than the recipe's; choose another folder")
        take(model, checkpoint.load(dtype=model.embed_tokens.weight.dtype, device="cpu"))

    @contextmanager
    def validated(self, weights: Mapping[str, Tensor] | None) -> Iterator[Transformer]:
        if count() > 1:
            with holding(self.model, self.model, weights):
                yield self.model
            return
        # A plain copy: the model that trains may be compiled and pads its rows.
        model = Transformer(self.model.config).to(self.model.embed_tokens.weight.device)
        model.load_state_dict({**self.model.state_dict(), **(weights or {})})
        yield model.requires_grad_(False)


class LoRA:
    """A low-rank adapter, the same in both passes; the model's own weights get no gradient.

    Beside each product x · Wᵀ it adds s · (x · Aᵀ) · Bᵀ, with A [r, I] and B [O, r], of experts [E, r, I] and
    [E, O, r]. B starts at zero, so that training starts from what the model does. base, fingerprint and bits are the
    model's, for the files.
    """

    def __init__(
        self,
        model: Transformer,
        settings: LoRASettings,
        *,
        base: str,
        fingerprint: str,
        bits: int | None = None,
        seed: int,
    ) -> None:
        self.model = model.requires_grad_(False)
        self.module = nn.Module()
        self._settings, self._base, self._fingerprint, self._seed = settings, base, fingerprint, seed
        self._bits = bits
        self._shapes = lora_targets(model.config, settings.targets)
        # Drawn on the CPU, as all weights: they are the same on every device.
        generator, device = torch.Generator().manual_seed(seed), model.embed_tokens.weight.device
        for name, (*stack, outputs, inputs) in self._shapes.items():
            a = torch.empty(*stack, settings.rank, inputs).uniform_(-1, 1, generator=generator) / math.sqrt(inputs)
            self.module.register_parameter(_key(name, "a"), nn.Parameter(a.to(device)))
            b = torch.zeros(*stack, outputs, settings.rank, device=device)
            self.module.register_parameter(_key(name, "b"), nn.Parameter(b))
            self._put_beside(name)

    def begin(self, step: int) -> None:
        if self._settings.dropout:
            torch.manual_seed(self._seed * 1_000_003 + step)

    def write(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        settings = self._settings
        write_adapter(
            folder,
            {name: LowRank(weights[_key(name, "a")], weights[_key(name, "b")]) for name in self._shapes},
            rank=settings.rank, alpha=settings.alpha, rslora=settings.rslora, dropout=settings.dropout,
            base=self._base, base_fingerprint=self._fingerprint, base_bits=self._bits,
        )  # fmt: skip

    def read(self, folder: Path) -> None:
        found = read_adapter(folder, self.model.config, scaled=False)
        if found.denoiser.keys() != self._shapes.keys() or found.rank != self._settings.rank:
            raise ValueError(
                f"{folder} holds an adapter of rank {found.rank} for {', '.join(found.targets)}, which is not what "
                "is trained; choose another folder"
            )
        state = {
            _key(name, side): getattr(low, side).contiguous()
            for name, low in found.denoiser.items()
            for side in ("a", "b")
        }
        self.module.load_state_dict(state)

    @contextmanager
    def validated(self, weights: Mapping[str, Tensor] | None) -> Iterator[Transformer]:
        # No copy: the base may be all that fits into the memory.
        with holding(self.module, self.model, weights):
            yield self.model

    def _put_beside(self, name: str) -> None:
        path, _, leaf = name.rpartition(".")
        module = self.model.get_submodule(path)
        if isinstance(module, Experts):
            module.added[leaf] = partial(self._grouped, name)
        else:
            module.register_forward_hook(partial(self._add, name))

    def _add(self, name: str, _: nn.Module, given: tuple[Any, ...], out: Tensor) -> Tensor:
        a, b = self._sides(name)
        inner = F.linear(self._kept(given[0]), a)
        return torch.addmm(out, inner, b.t(), alpha=self._settings.scale)

    def _grouped(self, name: str, x: Tensor, shares: Sequence[int]) -> Tensor:
        """x [n, I] sorted by expert, of which each has its share → [n, O]."""
        a, b = self._sides(name)
        inner = grouped_linear(self._kept(x), a.unbind(), shares) * self._settings.scale
        return grouped_linear(inner, b.unbind(), shares)

    def _sides(self, name: str) -> tuple[Tensor, Tensor]:
        return self.module.get_parameter(_key(name, "a")), self.module.get_parameter(_key(name, "b"))

    def _kept(self, x: Tensor) -> Tensor:
        # Passes without a gradient are what the model says, not what it learns from.
        is_dropped = self._settings.dropout and torch.is_grad_enabled()
        return F.dropout(x, self._settings.dropout) if is_dropped else x


def _key(name: str, side: str) -> str:
    """Returns the name of a parameter, which must have no dots."""
    return f"{name}.{side}".replace(".", "/")
