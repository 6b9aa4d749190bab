"""What HTTP costs: answer tokens a second of the engine in this process, and of a server, for the same prompts."""

from collections.abc import Sequence
from dataclasses import dataclass

from redraft.benchmark.load.driver import Answered, NotAnswered, Target, closed_loop
from redraft.benchmark.timing import Spread, ratio


@dataclass(frozen=True)
class Overhead:
    """Answer tokens a second of both, and the server's over the engine's, round by round; answer tokens of a round."""

    engine: Spread
    server: Spread
    ratio: Spread
    tokens: int


async def overhead(engine: Target, server: Target, prompts: Sequence[str], concurrency: int, rounds: int) -> Overhead:
    """All prompts for each in turn, `concurrency` at any time; a first round, in which both warm up, is not counted.

    Each sees every prompt equally often, so a prefix cache helps both alike. ValueError where a prompt is not answered,
    or the two do not write as many tokens: then they would not have had the same work.
    """
    rates: tuple[list[float], list[float]] = [], []
    written: set[int] = set()
    for number in range(-1, rounds):
        for target, measured in zip((engine, server), rates, strict=True):
            tokens, seconds = await _round(target, prompts, concurrency)
            written.add(tokens)
            if number >= 0:
                measured.append(tokens / seconds)
    if len(written) > 1:
        raise ValueError(f"engine and server wrote different answers to the same prompts: {sorted(written)} tokens")
    kept, served = rates
    return Overhead(Spread.of(kept), Spread.of(served), ratio(served, kept), written.pop())


async def _round(target: Target, prompts: Sequence[str], concurrency: int) -> tuple[int, float]:
    """(answer tokens, seconds)."""
    load = await closed_loop(target, prompts, concurrency)
    tokens = 0
    for one in load.outcomes:
        if isinstance(one, NotAnswered):
            raise ValueError(f"a request was not answered: {one.kind}: {one}") from one
        assert isinstance(one, Answered)
        if one.amount.tokens is None:
            raise ValueError("the server tells no usage, so its tokens are unknown")
        tokens += one.amount.tokens
    return tokens, load.seconds
