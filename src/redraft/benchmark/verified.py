"""Verified drafts beside the same weights token by token, in the same engine and over the same prompts."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from redraft.benchmark.timing import Spread, alternate, ratio
from redraft.diffusion.settings import SamplerSettings
from redraft.engine import EngineCore, Finished, Limits, Request
from redraft.generation.result import Generation
from redraft.model.transformer import Transformer


@dataclass(frozen=True)
class LoadPhase:
    """Prompts that are answered `batch` at a time, before those of the next phase."""

    prompts: Sequence[Sequence[int]]
    batch: int


@dataclass(frozen=True)
class VerifiedComparison:
    """Answer tokens a second of each mode, prompts included, and of a drafted one the ratio, round by round.

    ratio: over token by token; ratio_to_best, of mode "auto": over the better of the two pure ways, in each phase.
    equal: answers with the same tokens and the same end, of `answers`. rounds, denoiser_passes and tokens: means of an
    answer, as `Verification` has them.
    """

    tokens_per_second: dict[str, Spread]
    ratio: Spread
    ratio_to_best: tuple[Spread, ...]
    equal: int
    answers: int
    rounds: float
    denoiser_passes: float
    tokens: float


def compare_verified(
    model: Transformer, phases: Sequence[LoadPhase], settings: SamplerSettings, *, rounds: int, mode: str = "verified"
) -> VerifiedComparison:
    """Answers all prompts token by token, drafted, and in `mode`, by turns, phase after phase."""
    greedy = settings.replace(temperature=0.0, seed=0)
    last: dict[str, list[Generation]] = {}
    batch = max(phase.batch for phase in phases)
    # An engine of its own for each, whose costs are learned once.
    modes = list(dict.fromkeys(("autoregressive", "verified", mode)))
    cores = {one: EngineCore(model, Limits(prefix_tokens=0, admitted_requests=max(32, batch))) for one in modes}

    def seconds(one: str) -> list[float]:
        last[one], times = [], [time.perf_counter()]
        for phase in phases:
            last[one] += _answers(cores[one], phase, greedy, one)
            times.append(time.perf_counter())
        return [end - start for start, end in pairwise(times)]

    by_round = dict(zip(modes, alternate(rounds, *(partial(seconds, one) for one in modes)), strict=True))
    by_phase = {one: list(zip(*found, strict=True)) for one, found in by_round.items()}
    whole = {one: list(map(sum, found)) for one, found in by_round.items()}
    pure = [map(min, *both) for both in zip(by_phase["autoregressive"], by_phase["verified"], strict=True)]
    pairs = list(zip(last[mode], last["autoregressive"], strict=True))
    tokens, count = sum(len(other.token_ids) for _, other in pairs), len(pairs)
    reports = [one.verification for one, _ in pairs if one.verification is not None]
    return VerifiedComparison(
        tokens_per_second={one: Spread.of([tokens / s for s in found]) for one, found in whole.items()},
        ratio=ratio(whole["autoregressive"], whole[mode]),
        ratio_to_best=tuple(ratio(list(best), mine) for best, mine in zip(pure, by_phase[mode], strict=True))
        if mode == "auto"
        else (),
        equal=sum((a.token_ids, a.finish_reason) == (b.token_ids, b.finish_reason) for a, b in pairs),
        answers=count,
        rounds=sum(one.rounds for one in reports) / count,
        denoiser_passes=sum(one.denoiser_passes for one in reports) / count,
        tokens=tokens / count,
    )


def _answers(core: EngineCore, phase: LoadPhase, settings: SamplerSettings, mode: str) -> list[Generation]:
    found: dict[str, Generation] = {}
    waiting = [
        Request(id=str(i), prompt=tuple(prompt), settings=settings, mode=mode) for i, prompt in enumerate(phase.prompts)
    ]
    while waiting or core.held:
        while waiting and len(core.held) < phase.batch:
            core.submit(waiting.pop(0))
        found |= {event.id: event.generation for event in core.step() if isinstance(event, Finished)}
    return [found[str(i)] for i in range(len(phase.prompts))]
