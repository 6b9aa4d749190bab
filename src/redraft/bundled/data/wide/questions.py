"""Which fields are asked of a text, and under which names."""

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from redraft.bundled.data.wide.fields import Field, choose_name, choose_style, names_of, read_fields, spell
from redraft.bundled.data.wide.grammar import read_table
from redraft.bundled.data.wide.texts import Fact, fits

MISSING_SHARES = (50, 26, 15, 6, 3)
"""How often a request asks for 0, 1, 2 … fields that the text lacks."""
MAX_FIELDS = 8
GENERAL_OF = {
    "person": "name", "date": "date", "amount": "amount", "id": "reference", "company": "company",
    "city": "city", "time": "time",
}  # fmt: skip
"""The field whose names fit any value of a type."""
GENERAL = frozenset((*GENERAL_OF.values(), "percent", "quantity", "place", "contact"))
GENERAL_SHARE = 0.12
"""Share of roles that go by their type's general name, where the text has no other value of it."""


@dataclass(frozen=True)
class Question:
    """A field that is asked for, under the name of the answer's key."""

    name: str
    field: Field


def choose_questions(
    records: Sequence[Mapping[str, Fact]],
    language: str,
    rng: random.Random,
    *,
    held_out: bool = False,
    most: int = MAX_FIELDS,
    repeated: Collection[Field] = (),
) -> list[Question]:
    """Chooses fields of one or several records, and now and then some that they lack; at least one, in random order.

    With `held_out`, as many as possible go by names that training never has. `repeated` fields have several values.
    """
    own = list({name: fact.field for record in records for name, fact in record.items()}.values())
    present = [*own, *repeated]
    certain = [one for one in own if _has_one_reading(one, present)]
    wanted = rng.sample(certain, rng.randint(1, min(most, len(certain)))) if certain else []
    chosen = [(one, _name(one, present, language, rng, held_out=held_out)) for one in wanted]
    (missing,) = rng.choices(range(len(MISSING_SHARES)), MISSING_SHARES)
    missing = max(missing, 0 if chosen else 1)
    while missing:
        other = rng.choice(tuple(read_fields().values()))
        name = choose_name(other, language, rng, held_out=held_out)
        if fits(other, present) and not could_mean(other, name, present):
            chosen.append((other, name))
            missing -= 1
    rng.shuffle(chosen)
    style = choose_style(rng)
    questions: dict[str, Question] = {}
    for one, name in chosen[:most]:
        key = spell(name, style)
        questions.setdefault(key.lower(), Question(key, one))
    return list(questions.values())


def _has_one_reading(one: Field, present: Collection[Field]) -> bool:
    """Tells whether the names of a field fit no other field that is present."""
    others = [
        other
        for other in present
        if other.id != one.id and (other.type == one.type or set(other.names) & set(one.names))
    ]
    return not others or (one.id not in GENERAL and all(not set(one.names) & set(other.names) for other in others))


def could_mean(other: Field, name: str, present: Collection[Field]) -> bool:
    """Tells whether a name of a field that is missing might be understood as one of the present fields."""
    words = set(name.lower().split())
    return any(
        name in one.names
        or words & set(one.names[0].split())
        or (one.type != other.type and _are_alike(one.type, other.type))
        for one in present
    )


@cache
def _are_alike(one: str, other: str) -> bool:
    return any({one, other} <= set(line.split()) for line in read_table("alike")[""])


def _name(one: Field, present: Collection[Field], language: str, rng: random.Random, *, held_out: bool) -> str:
    is_only = sum(other.type == one.type for other in present) == 1
    is_from_table = one.id in read_fields()
    if held_out and is_from_table and names_of(one, language, held_out=True):
        return choose_name(one, language, rng, held_out=True)
    if is_only and is_from_table and one.type in GENERAL_OF and rng.random() < GENERAL_SHARE:
        return choose_name(read_fields()[GENERAL_OF[one.type]], language, rng)
    return choose_name(one, language, rng)
