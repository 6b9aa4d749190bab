"""What is asked of a text: which fields, under which names, and in which wording."""

import json
import random
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from redraft.bundled.data.wide.fields import Field, choose_name, choose_style, names_of, read_fields, spell
from redraft.bundled.data.wide.grammar import read_table, read_templates
from redraft.bundled.data.wide.texts import Fact, fits
from redraft.bundled.data.wide.values import Values

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
FORM_SHARES = {"object": 62, "after": 14, "schema": 9, "system": 12}
"""How often each wording asks for one object."""
ARRAY_FORM_SHARES = {"array": 85, "system_array": 15}
NATIVE_SHARE = 0.35
"""Share of requests in the text's language, where it is not English."""
FOREIGN_SYSTEM_SHARE = 0.07
SECOND_TURN_SHARE = 0.05
AGAIN_SHARE = 0.5
"""Share of second turns that only give another text for the same fields."""
DESCRIPTION_SHARE = 0.1
NUMBER_SHARE = 0.4
"""Share of schemas that ask for whole numbers as numbers."""

Messages = tuple[tuple[str, str], ...]
"""Roles and contents, the last one the user's."""


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


@dataclass(frozen=True)
class WordedRequest:
    """What is asked and how. wording: its section in the table; numbers: fields whose answer is to be a number."""

    messages: Messages
    wording: str
    numbers: frozenset[str] = frozenset()


def make_request(
    questions: Sequence[Question],
    text: str,
    language: str,
    values: Values,
    rng: random.Random,
    *,
    is_array: bool = False,
    is_seen: bool = True,
    wording: str | None = None,
) -> WordedRequest:
    """Words a request for fields of a text; `wording` names a section of the table (None: any)."""
    shares = ARRAY_FORM_SHARES if is_array else FORM_SHARES
    section = wording or rng.choices(list(shares), list(shares.values()))[0]
    table = read_templates("requests" if is_seen else "requests_unseen")
    templates = table[section]
    if is_seen and section in ("object", "after") and language != "en" and rng.random() < NATIVE_SHARE:
        templates = read_templates("requests_other")[language]
    template = rng.choice(templates)
    has_numbers = "schema" in template.names() and rng.random() < NUMBER_SHARE
    numbers = frozenset(
        one.name
        for one in questions
        if has_numbers and one.field.type in ("quantity", "count", "port", "year", "number")
    )
    given = {"fields": list_fields(questions, rng), "text": text}
    if "schema" in template.names():
        given["schema"] = write_schema(questions, rng, numbers)
    prompt = values.fill(template, rng, **given)
    if section.startswith("system"):
        return WordedRequest((("system", prompt), ("user", text)), section, numbers)
    if rng.random() < FOREIGN_SYSTEM_SHARE:
        system = values.fill(rng.choice(table["foreign_system"]), rng)
        return WordedRequest((("system", system), ("user", prompt)), section, numbers)
    return WordedRequest((("user", prompt),), section, numbers)


def ask_again(text: str, values: Values, rng: random.Random, *, is_seen: bool = True) -> str:
    """Words a later turn that gives another text for the fields of the turn before."""
    again = read_templates("requests" if is_seen else "requests_unseen")["again"]
    return values.fill(rng.choice(again), rng, text=text)


def list_fields(questions: Sequence[Question], rng: random.Random) -> str:
    """Lists names as prose does: with commas, quotes, bullets, descriptions in brackets and so on."""
    names = [one.name for one in questions]
    if rng.random() < DESCRIPTION_SHARE:
        names = [_describe(one, rng) for one in questions]
    quote = rng.choice(("{}",) * 12 + ('"{}"', "`{}`", "'{}'", "**{}**"))
    names = [quote.format(name) for name in names]
    draw = rng.random()
    if draw < 0.08:
        return "\n" + "\n".join(rng.choice(("- ", "* ")) + name for name in names) + "\n"
    if draw < 0.12:
        return "[" + ", ".join(names) + "]"
    if draw < 0.16:
        return rng.choice((",", "; ", " / ", " | ")).join(names)
    if draw < 0.45 and len(names) > 1:
        return ", ".join(names[:-1]) + rng.choice((" and ", " and ", " & ", ", and ")) + names[-1]
    return ", ".join(names)


def _describe(one: Question, rng: random.Random) -> str:
    if not one.field.descriptions or rng.random() < 0.4:
        return one.name
    form = rng.choice(("{} ({})", "{} ({})", "{}: {}", "{} - {}", "{} [{}]"))
    return form.format(one.name, rng.choice(one.field.descriptions))


def write_schema(questions: Sequence[Question], rng: random.Random, numbers: frozenset[str]) -> str:
    """Writes a JSON schema, a template of the answer, or a type, that has the fields as its keys."""
    names = [one.name for one in questions]
    draw = rng.random()
    if draw < 0.45:
        properties = {}
        for one in questions:
            kind: object = "integer" if one.name in numbers else rng.choice(("string", ["string", "null"]))
            properties[one.name] = {"type": kind}
            if one.field.descriptions and rng.random() < 0.3:
                properties[one.name]["description"] = rng.choice(one.field.descriptions)
        schema: dict[str, object] = {"type": "object", "properties": properties}
        if rng.random() < 0.5:
            schema["required"] = names
        return json.dumps(schema, ensure_ascii=False, indent=rng.choice((None, None, 2)))
    if draw < 0.8 or not all(re.fullmatch(r"[A-Za-z_]\w*", name) for name in names):
        blank = rng.choice(("", "...", "string", None))
        return json.dumps({name: 0 if name in numbers else blank for name in names}, ensure_ascii=False)
    kinds = {name: ("number", "int") if name in numbers else ("string", "str") for name in names}
    if draw < 0.9:
        return "{ " + "; ".join(f"{name}: {kinds[name][0]}" for name in names) + " }"
    return "class Record:\n" + "\n".join(f"    {name}: {kinds[name][1]}" for name in names)


def make_answer(
    questions: Sequence[Question], values: dict[str, str], numbers: frozenset[str]
) -> dict[str, str | int | None]:
    """Returns the right answer for values by field: null for what is missing, numbers where they are asked for."""
    answer: dict[str, str | int | None] = {}
    for one in questions:
        value = values.get(one.field.id)
        is_number = value is not None and one.name in numbers and re.fullmatch(r"0|[1-9]\d{0,8}", value)
        answer[one.name] = int(value) if is_number and value is not None else value
    return answer
