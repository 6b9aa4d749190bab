"""The prompts of a load test: of a shipped test set, or filler text."""

import itertools
import random
from collections.abc import Iterator

from redraft.evaluation.needle import FILLER
from redraft.evaluation.tasks import TASKS


def sample_prompts(name: str, count: int, *, repeats: bool = False) -> list[str]:
    """Samples prompts of a shipped test set, none twice: the second would be read from the prefix cache.

    repeats: begin again after the last. Raises ValueError for an unknown test set and, without repeats, for more
    prompts than it has.
    """
    if name not in TASKS:
        raise ValueError(f"prompts is {name!r}, must be one of {', '.join(TASKS)}")
    cases = TASKS[name].cases()
    if count > len(cases) and not repeats:
        raise ValueError(f"requests is {count}, the test set has {len(cases)} prompts; or use filler text (words)")
    sampled = random.Random(0).sample(cases, min(count, len(cases)))
    return [case.prompt for case in itertools.islice(itertools.cycle(sampled), count)]


def filler_prompts(low: int, high: int, seed: int = 0) -> Iterator[str]:
    """Yields prompts without end, of `low` to `high` words of filler sentences, no two with a long common prefix."""
    if not 1 <= low <= high:
        raise ValueError(f"prompts of {low} to {high} words: the first must be at least 1, the second not below it")
    rng = random.Random(f"prompts/{seed}")
    while True:
        count, words = rng.randint(low, high), [f"{rng.randrange(10**6)}:"]
        while len(words) < count:
            words += rng.choice(FILLER).split()
        yield " ".join(words[:count])
