"""Denoising steps of the same weights by two programs, alternating.

B requests, C canvas length, S steps of a canvas.
"""

import statistics
import time
from typing import Protocol

import torch
from torch import Tensor

from redraft.benchmark.timing import Comparison, Spread, alternate, ratio
from redraft.diffusion.settings import SamplerSettings
from redraft.engine import EngineCore, Limits, Request
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
        self._model, self._prompts, self._steps = model, prompts.tolist(), steps
        requests, tokens = len(prompts), prompts.numel() + len(prompts) * model.config.canvas_length
        self.limits = Limits(
            forward_tokens=tokens, admitted_tokens=tokens, admitted_requests=requests, queued_requests=requests,
            prefix_tokens=0,
        )  # fmt: skip

    def seconds(self) -> list[float]:
        """Runs one canvas of every request; seconds of each step but the first, which reads the prompts too."""
        length = self._model.config.canvas_length
        core = EngineCore(self._model, self.limits)
        settings = SamplerSettings.of(
            steps=self._steps, max_new_tokens=length, confidence_threshold=UNREACHABLE_ENTROPY, seed=0
        )
        for number, prompt in enumerate(self._prompts):
            core.submit(Request(id=str(number), prompt=tuple(prompt), settings=settings))
        found = []
        while core.held:
            start = time.perf_counter()
            core.step()
            found.append(time.perf_counter() - start)
        assert len(found) == self._steps, "not every request was in every forward"
        return found[1:]
