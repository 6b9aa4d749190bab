"""Values: what a text and a JSON string can both hold, and the lists' two parts."""

import random
import re

import pytest

from redraft.bundled.data.extraction import values
from redraft.bundled.data.extraction.values import (
    DRAW,
    WORDS,
    ValueSource,
    fill,
    is_held_out,
    more_words,
    scramble,
)
from redraft.bundled.data.extraction.wide_values import WIDE

# Fields whose values are entries of one list, as they are.
FAKER_FIELDS = {
    "company": "company",
    "city": "city",
    "street": "street_address",
    "postcode": "postcode",
    "country": "country",
    "origin": "city",
    "destination": "city",
}


@pytest.mark.parametrize(("held_out", "wide"), [(False, 0.0), (True, 0.0), (False, 1.0)])
@pytest.mark.parametrize("field", DRAW)
def test_values_stand_as_they_are_in_text_and_json(field, held_out, wide):
    source, rng = ValueSource(held_out=held_out, wide=wide, formats=WIDE), random.Random(1)
    drawn = [source.draw(field, rng) for _ in range(600)]
    assert len(set(drawn)) > 1
    assert all(value.strip() for value in drawn)
    assert [value for value in drawn if value != value.strip()] == []
    assert [value for value in drawn if re.search(r'["\\\x00-\x1f]', value)] == []
    assert max(map(len, drawn)) <= 70


@pytest.mark.parametrize("field", ["name", "company", "product", "carrier", "path", "host"])
def test_values_follow_from_the_generator(field):
    def draw(seed: int) -> list[str]:
        rng = random.Random(seed)
        return [ValueSource(held_out=False).draw(field, rng) for _ in range(20)]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


@pytest.mark.parametrize(
    "value",
    ["Ana Kovacs", "ACME Inc & Co.", "ana.k@mail-24.example", "+49 30 1234", "1,204.50 €", "3 March 2024", "x"],
)
def test_scrambling_keeps_the_shape_of_a_value(value):
    rng = random.Random(4)
    made = [scramble(value, rng) for _ in range(200)]

    def shape(text: str) -> str:
        def word(found: re.Match[str]) -> str:
            return "ALL" if found[0].isupper() and len(found[0]) > 1 else "Cap" if found[0][0].isupper() else "low"

        return re.sub(r"\d", "9", re.sub(r"[^\W\d_]+", word, text))

    assert {shape(text) for text in made} == {shape(value)}
    assert len(set(made)) > (10 if len(value) == 1 else 150)


def test_scrambled_is_a_share():
    source, rng = ValueSource(held_out=False, scrambled=0.5), random.Random(0)
    known = set(values._pool("country", False))
    share = sum(source.draw("country", rng) in known for _ in range(2000)) / 2000
    assert 0.45 < share < 0.55


def test_without_scrambling_nothing_more_is_drawn_from_the_generator():
    plain, none = random.Random(5), random.Random(5)
    source = ValueSource(held_out=False, scrambled=0.0)
    assert source.draw("path", none) == DRAW["path"](source, plain)
    assert plain.random() == none.random()


def test_an_unknown_field():
    with pytest.raises(KeyError, match="shoe_size"):
        ValueSource(held_out=False).draw("shoe_size", random.Random(0))


def test_fill():
    rng = random.Random(0)
    filled = {fill("A9*-zq9", rng) for _ in range(300)}
    assert all(re.fullmatch(r"[A-Z]\d[A-Z0-9]-zq\d", value) for value in filled)
    assert len(filled) > 280


def test_a_tenth_is_held_out_once_and_for_all():
    # Pinned: another split would make old checkpoints' test values known ones.
    held_out = [word for word in values.ADJECTIVES + values.NOUNS if is_held_out(word)]
    assert " ".join(held_out) == (
        "waterproof wooden transparent outdoor kitchen blender drill charger headphones telescope toolbox projector"
    )
    share = sum(is_held_out(f"entry {i}") for i in range(10_000)) / 10_000
    assert 0.09 < share < 0.11


@pytest.mark.parametrize("field", FAKER_FIELDS)
def test_the_two_parts_of_a_list_have_nothing_in_common(field):
    def part(held_out: bool) -> set[str]:
        source, rng = ValueSource(held_out=held_out), random.Random(3)
        return {source.draw(field, rng) for _ in range(3000)}

    known, unknown = part(False), part(True)
    assert not known & unknown
    assert len(unknown) > 50
    assert len(known) > 2 * len(unknown)


@pytest.mark.parametrize(("held_out", "wide"), [(False, 0.0), (True, 0.0), (False, 0.5)])
def test_a_source_draws_from_its_own_part_only(monkeypatch, held_out, wide):
    drawn = draws_of(monkeypatch)
    source, rng = ValueSource(held_out=held_out, wide=wide, formats=WIDE), random.Random(0)
    for _ in range(200):
        for field in DRAW:
            source.draw(field, rng)
    wrong = {value for value, entries in drawn if is_held_out(value) != held_out and any_other(entries, held_out)}
    assert len(drawn) > 2000
    assert wrong == set()


def any_other(entries: tuple[str, ...] | None, held_out: bool) -> bool:
    """Whether a list had an entry of the right part to give."""
    return entries is None or any(is_held_out(entry) == held_out for entry in entries)


def draws_of(monkeypatch) -> list[tuple[str, tuple[str, ...] | None]]:
    """Every entry that is taken from a list from now on, with its list where it is a short one."""
    drawn: list[tuple[str, tuple[str, ...] | None]] = []
    faker, word = ValueSource.faker, ValueSource.word

    def spied_faker(self, kind, rng):
        value = faker(self, kind, rng)
        drawn.append((value, None))
        return value

    def spied_word(self, name, rng):
        value = word(self, name, rng)
        drawn.append((value, (*WORDS[name], *(more_words()[name] if self.wide else ()))))
        return value

    monkeypatch.setattr(ValueSource, "faker", spied_faker)
    monkeypatch.setattr(ValueSource, "word", spied_word)
    return drawn


def test_longer_lists_and_formats_are_for_known_lists_and_fields():
    assert more_words().keys() <= WORDS.keys()
    assert WIDE.keys() <= DRAW.keys()
    assert all(len(set(words) - set(WORDS[name])) > 10 for name, words in more_words().items())
