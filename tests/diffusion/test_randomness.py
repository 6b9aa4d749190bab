"""The counter's numbers against SplitMix64 in plain Python integers, and their statistics."""

import dataclasses
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from redraft.diffusion.randomness import Counter, Purpose, uniforms_of_many

MASK = (1 << 64) - 1
GAMMA = 0x9E3779B97F4A7C15
# The 0.9999 quantile of chi-square with 255 degrees of freedom: one honest stream in ten thousand lies above.
CHI_SQUARE_255 = 347.7


def splitmix(x: int) -> int:
    """SplitMix64's output function, as its authors print it."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def slow_uniform(counter: Counter, purpose: Purpose, position: int, tile: int = 0) -> float:
    state = GAMMA
    for part in (counter.seed, counter.index, counter.canvas, counter.step, int(purpose), tile):
        state = splitmix(((state ^ (part & MASK)) + GAMMA) & MASK)
    return (splitmix(splitmix((state + position * GAMMA) & MASK)) >> 11) / 2**53


def chi_square(counts: torch.Tensor) -> float:
    expected = counts.sum() / counts.numel()
    return float(((counts - expected) ** 2 / expected).sum())


def histogram(uniforms: torch.Tensor, bins: int) -> torch.Tensor:
    return torch.bincount((uniforms * bins).long(), minlength=bins).double()


integers = st.integers(-(2**70), 2**70)


@given(seed=integers, index=integers, canvas=integers, step=integers, purpose=st.sampled_from(Purpose), tile=integers)
def test_uniforms_are_splitmix_of_their_place(seed, index, canvas, step, purpose, tile):
    counter = Counter(seed, index, canvas, step)
    expected = [slow_uniform(counter, purpose, position, tile) for position in range(5)]
    assert counter.uniforms(5, purpose, tile=tile).tolist() == expected


# Whoever changes these changes every answer that anybody has noted with its seed.
@pytest.mark.parametrize(
    ("counter", "purpose", "tile", "golden"),
    [
        (Counter(0), Purpose.INITIAL_CANVAS, 0, [0.41918496486584234, 0.9154676201330114, 0.5875024427737627]),
        (Counter(2026, 3, 2, 48), Purpose.SAMPLE, 7, [0.4232153786004599, 0.6402781270524612, 0.5412071157429781]),
        (Counter(-1), Purpose.RENOISE, 0, [0.8955573263875415, 0.7897006983386003, 0.9496346972773487]),
        (
            Counter(2**63 - 1, 1),
            Purpose.CORRUPTION_TOKEN,
            0,
            [0.5441553673752427, 0.21104139558936685, 0.6508284145593419],
        ),
    ],
)
def test_golden_uniforms(counter, purpose, tile, golden):
    assert counter.uniforms(3, purpose, tile=tile).tolist() == golden


def test_golden_tokens():
    tokens = Counter(0).random_tokens(6, 262144, Purpose.INITIAL_CANVAS)
    assert tokens.tolist() == [109886, 239984, 154010, 112842, 30758, 65568]


def test_purposes_keep_their_numbers():
    assert [(purpose.name, int(purpose)) for purpose in Purpose] == [
        ("INITIAL_CANVAS", 0),
        ("SAMPLE", 1),
        ("RENOISE", 2),
        ("CORRUPTION_LEVEL", 3),
        ("CORRUPTION_MASK", 4),
        ("CORRUPTION_TOKEN", 5),
        ("CANVAS_CHOICE", 6),
        ("SELF_CONDITIONING", 7),
        ("UNROLLING", 8),
        ("TEMPERATURE", 9),
        ("SHOWN_SHARE", 10),
        ("SHOWN", 11),
        ("JOINT", 12),
        ("WITHIN", 13),
        ("CAUSAL", 14),
    ]


def test_uniforms_are_float64_in_the_half_open_interval():
    uniforms = Counter(1).uniforms(200_000, Purpose.SAMPLE)
    assert uniforms.dtype == torch.float64
    assert 0 <= uniforms.min() < 1e-4
    assert 1 - 1e-4 < uniforms.max() < 1


@settings(max_examples=30)
@given(count=st.integers(0, 300), more=st.integers(0, 300), seed=st.integers(0, 2**63 - 1))
def test_a_position_has_its_number_whatever_the_count(count, more, seed):
    few = Counter(seed).uniforms(count, Purpose.SAMPLE)
    many = Counter(seed).uniforms(count + more, Purpose.SAMPLE)
    assert few.shape == (count,)
    assert torch.equal(many[:count], few)


@pytest.mark.parametrize(
    ("counter", "purpose", "tile"),
    [
        (Counter(0), Purpose.INITIAL_CANVAS, 0),
        (Counter(7, 1, 2, 3), Purpose.SAMPLE, 4),
        (Counter(-5), Purpose.RENOISE, 0),
        (Counter(2**63 - 1), Purpose.CORRUPTION_MASK, 0),
    ],
)
def test_positions_are_uniform_and_serially_independent(counter, purpose, tile):
    uniforms = counter.uniforms(1 << 16, purpose, tile=tile)
    assert chi_square(histogram(uniforms, 256)) < CHI_SQUARE_255
    pairs = (uniforms[:-1] * 16).long() * 16 + (uniforms[1:] * 16).long()
    assert chi_square(torch.bincount(pairs, minlength=256).double()) < CHI_SQUARE_255


@pytest.mark.parametrize("name", ["seed", "index", "canvas", "step", "purpose", "tile"])
def test_first_numbers_of_neighbouring_streams_are_uniform(name):
    def first(value: int) -> float:
        place = {"seed": 0, "index": 0, "canvas": 0, "step": 0, "purpose": 0, "tile": 0, name: value}
        purpose, tile = place.pop("purpose"), place.pop("tile")
        return float(Counter(**place).uniforms(1, purpose, tile=tile))

    uniforms = torch.tensor([first(value) for value in range(3000)], dtype=torch.float64)
    assert chi_square(histogram(uniforms, 256)) < CHI_SQUARE_255


BASE = (Counter(11, 1, 2, 3), Purpose.SAMPLE, 0)


@pytest.mark.parametrize(
    "other",
    [
        (dataclasses.replace(BASE[0], seed=12), *BASE[1:]),
        (dataclasses.replace(BASE[0], seed=-11), *BASE[1:]),
        (dataclasses.replace(BASE[0], index=2), *BASE[1:]),
        (dataclasses.replace(BASE[0], canvas=3), *BASE[1:]),
        (dataclasses.replace(BASE[0], step=4), *BASE[1:]),
        (BASE[0], Purpose.RENOISE, 0),
        (BASE[0], Purpose.SAMPLE, 1),
        (Counter(11, 2, 1, 3), Purpose.SAMPLE, 0),  # the same numbers at other places
    ],
    ids=["seed", "sign", "index", "canvas", "step", "purpose", "tile", "swapped"],
)
def test_streams_that_differ_in_one_component_are_independent(other):
    n = 1 << 15
    here = BASE[0].uniforms(n, BASE[1], tile=BASE[2])
    there = other[0].uniforms(n, other[1], tile=other[2])
    # Also at offsets: a stream must not be its neighbour, shifted.
    for shift in (-1, 0, 1):
        a, b = here[max(0, shift) : n + min(0, shift)], there[max(0, -shift) : n + min(0, -shift)]
        joint = (a * 16).long() * 16 + (b * 16).long()
        assert chi_square(torch.bincount(joint, minlength=256).double()) < CHI_SQUARE_255


def test_no_two_places_share_a_number():
    places = itertools.product(range(4), range(3), range(3), range(4), Purpose, range(2))
    drawn = torch.cat([Counter(*place[:4]).uniforms(8, place[4], tile=place[5]) for place in places])
    # Of 9216 draws among 2^53 numbers, two are equal by chance once in 2e8 times.
    assert drawn.unique().numel() == drawn.numel()


def test_torchs_own_generator_is_neither_read_nor_moved():
    before = torch.random.get_rng_state()
    first = Counter(3).uniforms(100, Purpose.SAMPLE)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(1)
    assert torch.equal(Counter(3).uniforms(100, Purpose.SAMPLE), first)


def test_numbers_are_made_on_the_device_asked_for():
    assert Counter(0).uniforms(4, Purpose.SAMPLE, device="meta").device.type == "meta"
    assert Counter(0).random_tokens(4, 9, Purpose.SAMPLE, device="meta").device.type == "meta"


class Extreme(Counter):
    """Draws the largest number that there is."""

    def uniforms(self, count, purpose, *, tile=0, device="cpu"):
        return torch.full((count,), 1 - 2.0**-53, dtype=torch.float64, device=device)


@given(vocab_size=st.integers(1, 2**31))
def test_the_largest_number_is_still_a_token(vocab_size):
    assert Extreme(0).random_tokens(1, vocab_size, Purpose.SAMPLE).item() == vocab_size - 1


@pytest.mark.parametrize("vocab_size", [1, 2, 61, 256])
def test_tokens_are_uniform_over_the_vocabulary(vocab_size):
    tokens = Counter(4).random_tokens(1 << 15, vocab_size, Purpose.INITIAL_CANVAS)
    assert tokens.dtype == torch.int64
    counts = torch.bincount(tokens, minlength=vocab_size).double()
    assert counts.numel() == vocab_size
    # Fewer degrees of freedom have a smaller quantile; this bound is mean + 5 standard deviations.
    assert chi_square(counts) <= (vocab_size - 1) + 5 * (2 * (vocab_size - 1)) ** 0.5


def test_many_counters_at_once_give_each_its_own_numbers():
    counters = [Counter(2**63 - 1, 3, 1, 48), Counter(0), Counter(7, step=2)]
    counts = [5, 1, 12]
    together = uniforms_of_many(counters, counts, Purpose.RENOISE)
    each = [counter.uniforms(count, Purpose.RENOISE) for counter, count in zip(counters, counts, strict=True)]
    assert torch.equal(together, torch.cat(each))
