"""Verified drafts beside the same weights token by token, in the same engine and over the same prompts."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from redraft.benchmark.timing import Spread, alternate, ratio
from redraft.diffusion.settings import SamplerSettings
from redraft.engine import EngineCore, Finished, Limits, Request
from redraft.generation.result import Generation
from redraft.model.transformer import Transformer


@dataclass(frozen=True)
class VerifiedComparison:
    """Answer tokens a second of both ways, prompts included, and the ratio round by round: verified over the other.

    equal: answers with the same tokens and the same end, of `answers`. rounds, denoiser_passes and tokens: means of an
    answer, as `Verification` has them.
    """

    verified: Spread
    autoregressive: Spread
    ratio: Spread
    equal: int
    answers: int
    rounds: float
    denoiser_passes: float
    tokens: float


def compare_verified(
    model: Transformer, prompts: Sequence[Sequence[int]], settings: SamplerSettings, batch: int, *, rounds: int
) -> VerifiedComparison:
    """Answers all prompts in both ways by turns, `batch` at a time."""
    greedy = settings.replace(temperature=0.0, seed=0)
    last: dict[str, list[Generation]] = {}

    def seconds(mode: str) -> float:
        start = time.perf_counter()
        last[mode] = _answers(model, prompts, greedy, batch, mode)
        return time.perf_counter() - start

    ours, theirs = alternate(rounds, lambda: seconds("verified"), lambda: seconds("autoregressive"))
    pairs = list(zip(last["verified"], last["autoregressive"], strict=True))
    tokens, count = sum(len(other.token_ids) for _, other in pairs), len(prompts)
    found = [one.verification for one, _ in pairs if one.verification is not None]
    return VerifiedComparison(
        verified=Spread.of([tokens / one for one in ours]),
        autoregressive=Spread.of([tokens / one for one in theirs]),
        ratio=ratio(theirs, ours),
        equal=sum((a.token_ids, a.finish_reason) == (b.token_ids, b.finish_reason) for a, b in pairs),
        answers=count,
        rounds=sum(one.rounds for one in found) / count,
        denoiser_passes=sum(one.denoiser_passes for one in found) / count,
        tokens=tokens / count,
    )


def _answers(
    model: Transformer, prompts: Sequence[Sequence[int]], settings: SamplerSettings, batch: int, mode: str
) -> list[Generation]:
    core = EngineCore(model, Limits(prefix_tokens=0))
    found: dict[str, Generation] = {}
    waiting = [
        Request(id=str(i), prompt=tuple(prompt), settings=settings, mode=mode) for i, prompt in enumerate(prompts)
    ]
    while waiting or core.held:
        while waiting and len(core.held) < batch:
            core.submit(waiting.pop(0))
        found |= {event.id: event.generation for event in core.step() if isinstance(event, Finished)}
    return [found[str(i)] for i in range(len(prompts))]
