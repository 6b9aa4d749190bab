"""Counter-based randomness: a uniform number is a function of where it is used, never of what was drawn before.

So a request's tokens do not depend on what else runs beside it, and any single number can be computed again.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


class Purpose(enum.IntEnum):
    """What a random number decides; keeps the streams of one position apart."""

    INITIAL_CANVAS = 0
    SAMPLE = 1
    RENOISE = 2
    CORRUPTION_LEVEL = 3
    CORRUPTION_MASK = 4
    CORRUPTION_TOKEN = 5
    CANVAS_CHOICE = 6
    SELF_CONDITIONING = 7
    UNROLLING = 8
    TEMPERATURE = 9
    SHOWN_SHARE = 10
    SHOWN = 11
    JOINT = 12
    WITHIN = 13
    CAUSAL = 14


@dataclass(frozen=True)
class Counter:
    """The place in a run that numbers are drawn for. `index` is i for the i-th of n answers to one prompt."""

    seed: int
    index: int = 0
    canvas: int = 0
    step: int = 0

    def uniforms(self, count: int, purpose: Purpose, *, tile: int = 0, device: torch.device | str = "cpu") -> Tensor:
        """float64 [count] in [0, 1), one for each position."""
        positions = torch.arange(count, dtype=torch.int64, device=device)
        return _uniforms(positions, self._key(purpose, tile))

    def random_tokens(
        self, count: int, vocab_size: int, purpose: Purpose, *, device: torch.device | str = "cpu"
    ) -> Tensor:
        """int64 [count], uniform over the vocabulary."""
        return (self.uniforms(count, purpose, device=device) * vocab_size).long()

    def _key(self, purpose: Purpose, tile: int) -> int:
        state = _GOLDEN
        for part in (self.seed, self.index, self.canvas, self.step, int(purpose), tile):
            state = _mix_int(state ^ (part & _MASK))
        return _signed(state)


def uniforms_of_many(
    counters: Sequence[Counter],
    counts: Sequence[int],
    purpose: Purpose,
    device: torch.device | str = "cpu",
    *,
    starts: Sequence[int] | None = None,
) -> Tensor:
    """float64 [sum of counts]: the uniforms of each counter, behind one another.

    starts: each counter's first position, 0 where they are left out.
    """
    sizes = torch.tensor(counts, device=device)
    keys = torch.tensor([counter._key(purpose, 0) for counter in counters], dtype=torch.int64, device=device)
    first = [0] * len(counts) if starts is None else starts
    positions = torch.cat(
        [torch.arange(at, at + count, device=device) for at, count in zip(first, counts, strict=True)]
    )
    return _uniforms(positions, keys.repeat_interleave(sizes))


def tokens_of_many(
    counters: Sequence[Counter], count: int, vocab_size: int, purpose: Purpose, device: torch.device | str = "cpu"
) -> Tensor:
    """int64 [counters · count]: uniform tokens of the vocabulary, `count` of each counter, one behind the other."""
    return (uniforms_of_many(counters, [count] * len(counters), purpose, device) * vocab_size).long()


# SplitMix64's finalizer (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014), once on Python
# integers for the key and once on tensors for the positions. int64 products wrap as unsigned ones do.
_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _mix_int(x: int) -> int:
    x = (x + _GOLDEN) & _MASK
    x = ((x ^ (x >> 30)) * _FACTORS[0]) & _MASK
    x = ((x ^ (x >> 27)) * _FACTORS[1]) & _MASK
    return x ^ (x >> 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64."""
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _uniforms(positions: Tensor, key: int | Tensor) -> Tensor:
    bits = _mix(_mix(positions * _signed(_GOLDEN) + key))
    return _shift(bits, 11).double().mul_(2.0**-53)


def _mix(x: Tensor) -> Tensor:
    # In place where nobody else has the tensor: a step of a small model notices.
    x = _shift(x, 30).bitwise_xor_(x).mul_(_signed(_FACTORS[0]))
    x = _shift(x, 27).bitwise_xor_(x).mul_(_signed(_FACTORS[1]))
    return _shift(x, 31).bitwise_xor_(x)
