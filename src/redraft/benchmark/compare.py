"""Denoising steps of the same weights by two programs, alternating.

B requests, C canvas length, S steps of a canvas.
"""

import copy
import dataclasses
import statistics
import time
from typing import Protocol

import torch
from torch import Tensor

from redraft.benchmark.timing import Comparison, Spread, alternate, ratio
from redraft.diffusion.settings import SamplerSettings
from redraft.engine import CanvasCommitted, EngineCore, Limits, Request
from redraft.model.transformer import Transformer

UNREACHABLE_ENTROPY = 1e-9
"""A threshold of mean entropy that no canvas falls below: each takes all its steps."""


class Steps(Protocol):
    """A program that denoises one canvas of S steps for B requests."""

    def seconds(self) -> list[float]:
        """Runs one canvas; seconds of each step but the first, which may read the prompts too."""
        ...


def compare(ours: Steps, theirs: Steps, rounds: int) -> Comparison:
    """Measures the seconds of a step on both sides, a median for each round; the ratio is theirs over ours."""
    mine, other = alternate(
        rounds, lambda: statistics.median(ours.seconds()), lambda: statistics.median(theirs.seconds())
    )
    return Comparison(Spread.of(mine), Spread.of(other), ratio(other, mine))


def random_prompts(vocab_size: int, requests: int, context: int, seed: int = 0) -> Tensor:
    """Returns random token ids, int64 [B, context]."""
    return torch.randint(0, vocab_size, (requests, context), generator=torch.Generator().manual_seed(seed))


class EngineSteps:
    """Our engine, with prompts int64 [B, T]. Its limits admit all of them to every forward."""

    def __init__(self, model: Transformer, prompts: Tensor, steps: int) -> None:
        self._model, self._prompts, self._steps = model, prompts, steps
        self.limits = _limits(prompts, model.config.canvas_length)

    def seconds(self) -> list[float]:
        """Runs one canvas of every request; seconds of each step but the first, which reads the prompts too."""
        core = EngineCore(self._model, self.limits)
        settings = SamplerSettings.of(
            steps=self._steps, max_new_tokens=self._model.config.canvas_length,
            confidence_threshold=UNREACHABLE_ENTROPY, seed=0,
        )  # fmt: skip
        _submit(core, self._prompts, settings, "diffusion")
        found = []
        while core.held:
            start = time.perf_counter()
            core.step()
            found.append(time.perf_counter() - start)
        assert len(found) == self._steps, "not every request was in every forward"
        return found[1:]


class EngineTokens:
    """Our engine token by token, with prompts int64 [B, T], for up to `room` tokens each. No EOS ends it."""

    def __init__(self, model: Transformer, prompts: Tensor, room: int) -> None:
        endless = copy.copy(model)
        endless.config = dataclasses.replace(model.config, eos_ids=())
        self._core = EngineCore(endless, _limits(prompts, room + 1))
        _submit(self._core, prompts, SamplerSettings(max_new_tokens=room, temperature=0), "autoregressive")

    def token(self) -> list[int]:
        """Returns the next token of every request, [B]; the first call reads the prompts."""
        found = {event.id: event.token_ids for event in self._core.step() if isinstance(event, CanvasCommitted)}
        return [token for number in range(len(found)) for token in found[str(number)]]


def _limits(prompts: Tensor, room: int) -> Limits:
    """Admits all prompts, with room for so many tokens behind each, to every forward."""
    requests, tokens = len(prompts), prompts.numel() + len(prompts) * room
    return Limits(
        forward_tokens=tokens, admitted_tokens=tokens, admitted_requests=requests, queued_requests=requests,
        prefix_tokens=0,
    )  # fmt: skip


def _submit(core: EngineCore, prompts: Tensor, settings: SamplerSettings, mode: str) -> None:
    for number, prompt in enumerate(prompts.tolist()):
        core.submit(Request(id=str(number), prompt=tuple(prompt), settings=settings, mode=mode))
