"""Records of the extraction task: a prompt that names fields, and the JSON object that answers it.

The answer's keys are the fields in the prompt's order; the value is null if the text lacks the field.
"""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from redraft.bundled.data.extraction import mess
from redraft.bundled.data.extraction.phrasings import KINDS, Phrasing, Slot, read_phrasings
from redraft.bundled.data.extraction.values import ValueSource
from redraft.bundled.data.extraction.wide_values import WIDE
from redraft.bundled.data.record import Record

HERE = Path(__file__).parent
DOUBLE_SHARE = 0.34
"""Share of records with two texts; chosen so that about a tenth of the answers spans two canvases of 64."""

SCRAMBLED_SHARE = 0.4
"""Share of training values made of random words and digits, with which copying is learned sooner and better."""

WIDE_SHARE = 0.5
"""Share of training values from longer lists and in further formats, which test records do not have."""


@cache
def seen_phrasings() -> tuple[Phrasing, ...]:
    return tuple(read_phrasings(HERE / "seen_prose.txt") + read_phrasings(HERE / "seen_notes.txt"))


@cache
def more_phrasings() -> tuple[Phrasing, ...]:
    """Reads further phrasings for training; tests of seen phrasings use only the first ones, to stay comparable."""
    return tuple(read_phrasings(HERE / "more.txt"))


@cache
def unseen_phrasings() -> tuple[Phrasing, ...]:
    return tuple(read_phrasings(HERE / "unseen.txt"))


def make_record(
    phrasings: Sequence[Phrasing], source: ValueSource, rng: random.Random, *, messy: float = 0.0
) -> Record:
    """Fills a phrasing with values and asks for some of its kind's fields, in random order.

    A share `messy` of the texts is mistyped, wrapped as mail and scanners do, or a table instead of a phrasing. Some
    records hold two texts and ask for most of the fields that only one of them has: long answers, and values that must
    be told apart.
    """
    kind, values, text = _text(phrasings, source, rng, messy)
    if rng.random() < DOUBLE_SHARE:
        more_kind, more_values, more_text = _text(phrasings, source, rng, messy)
        common = values.keys() & more_values.keys()
        merged = {field: value for field, value in (values | more_values).items() if field not in common}
        if merged:
            fields = rng.sample(list(merged), rng.randint((len(merged) * 2 + 2) // 3, len(merged)))
            between = rng.choice((" ", "\n", "\n\n"))
            return _record(f"{kind}+{more_kind}", fields, merged, text + between + more_text)
    return _record(kind, _wanted(kind, tuple(values), rng), values, text)


def _text(
    phrasings: Sequence[Phrasing], source: ValueSource, rng: random.Random, messy: float
) -> tuple[str, dict[str, str], str]:
    """Returns (kind, values, text), messy or not."""
    phrasing = rng.choice(phrasings)
    if not messy or rng.random() >= messy:
        return phrasing.kind, *render(phrasing, source, rng)
    if rng.random() < 0.2:
        fields = rng.sample(KINDS[phrasing.kind], rng.randint(2, min(6, len(KINDS[phrasing.kind]))))
        values = {field: source.draw(field, rng) for field in fields}
        return phrasing.kind, values, mess.make_table(tuple(values.items()), rng)
    values, text = render(phrasing, source, rng, rng.choice((0.0, 0.05, 0.15)))
    return phrasing.kind, values, mess.wrap(text, rng) if rng.random() < 0.6 else text


def render(
    phrasing: Phrasing, source: ValueSource, rng: random.Random, mistyped: float = 0.0
) -> tuple[dict[str, str], str]:
    """Fills a phrasing; returns the values and the text, in which a share of the words between values is mistyped."""
    values: dict[str, str] = {}
    text = ""
    for part in phrasing.expand(rng):
        if isinstance(part, Slot):
            text += values.setdefault(part.field, source.draw(part.field, rng))
        else:
            text += mess.mistype_words(part, rng, mistyped) if mistyped else part
    return values, text


def _record(kind: str, fields: Sequence[str], values: Mapping[str, str], text: str) -> Record:
    answer = json.dumps({field: values.get(field) for field in fields}, ensure_ascii=False)
    return Record(kind, f"Extract {', '.join(fields)} as JSON: {text}", answer)


def _wanted(kind: str, present: tuple[str, ...], rng: random.Random) -> list[str]:
    """Chooses mostly fields that are present, some that are absent, and rarely one of another kind of text."""
    absent = [field for field in KINDS[kind] if field not in present]
    wanted = rng.sample(present, rng.randint(min(1, len(present)), len(present)))
    wanted += [field for field in absent if rng.random() < 0.2]
    if rng.random() < 0.04:
        other = rng.choice(rng.choice(tuple(KINDS.values())))
        if other not in KINDS[kind]:
            wanted.append(other)
    if not wanted:
        wanted.append(rng.choice(absent))
    rng.shuffle(wanted)
    return wanted


def training_record(seed: int, index: int, scrambled: float = SCRAMBLED_SHARE, messy: float = 0.0) -> Record:
    """Returns record `index` of the endless training stream of `seed`, whatever was drawn before."""
    rng = random.Random(f"train/{seed}/{index}")
    source = ValueSource(held_out=False, scrambled=scrambled, wide=WIDE_SHARE, formats=WIDE)
    return make_record(seen_phrasings() + more_phrasings(), source, rng, messy=messy)


def list_record(seed: int, index: int) -> Record:
    """Returns record `index` of the easy stream: a few fields, written as a list of names and values."""
    rng = random.Random(f"list/{seed}/{index}")
    source = ValueSource(held_out=False, scrambled=0.75)
    kind = rng.choice(tuple(KINDS))
    present = rng.sample(KINDS[kind], rng.randint(1, 3))
    values = {field: source.draw(field, rng) for field in present}
    between, mark = rng.choice((", ", "; ", "\n", " | ", " ")), rng.choice((": ", " ", "=", " - "))
    text = between.join(f"{field}{mark}{value}" for field, value in values.items())
    wanted = rng.sample(present, rng.randint(1, len(present)))
    if rng.random() < 0.2:
        wanted.insert(rng.randint(0, len(wanted)), rng.choice([f for f in KINDS[kind] if f not in present]))
    return _record(kind, wanted, values, text)


def held_out_records(count: int, *, seen: bool, seed: int = 0) -> Iterator[Record]:
    """Yields test records in seen or unseen phrasings; every other one draws its values from held-out lists only."""
    phrasings = seen_phrasings() if seen else unseen_phrasings()
    for index in range(count):
        rng = random.Random(f"test/{'seen' if seen else 'unseen'}/{seed}/{index}")
        yield make_record(phrasings, ValueSource(held_out=index % 2 == 1), rng)
