"""Denoising steps beside the same weights token by token, in the same engine.

C canvas length.
"""

from dataclasses import dataclass

from redraft.benchmark.compare import EngineTokens, random_prompts
from redraft.benchmark.steps import Step
from redraft.benchmark.timing import Spread, alternate, seconds_of
from redraft.model.transformer import Transformer


@dataclass(frozen=True)
class AutoregressiveComparison:
    """The seconds of a denoising step, of a commit and of a token, each for all requests.

    break_even: the denoising steps per canvas at which both are as fast, C · token = steps · step + commit.
    """

    step: Spread
    commit: Spread
    token: Spread
    break_even: Spread


def compare_autoregressive(
    model: Transformer, batch: int, context: int, *, rounds: int, tokens: int = 8
) -> AutoregressiveComparison:
    """Measures a step, a commit and `tokens` tokens in turn. The tokens stand where a canvas's middle would."""
    step = Step(model, batch, context)
    length = step.length
    prompts = random_prompts(model.config.vocab_size, batch, max(1, context + length // 2))
    decoding = EngineTokens(model, prompts, 1 + (rounds + 1) * tokens)
    decoding.token()
    steps, commits, each = alternate(
        rounds,
        lambda: seconds_of(step.run),
        lambda: seconds_of(step.commit),
        lambda: seconds_of(decoding.token, tokens),
    )
    even = [(length * one - commit) / taken for one, commit, taken in zip(each, commits, steps, strict=True)]
    return AutoregressiveComparison(*map(Spread.of, (steps, commits, each, even)))
