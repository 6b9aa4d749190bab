"""The wording of requests: how the fields are listed, and the sentence or schema that asks for them."""

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from redraft.bundled.data.wide.grammar import read_templates
from redraft.bundled.data.wide.questions import Question
from redraft.bundled.data.wide.values import Values

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
class Request:
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
) -> Request:
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
        return Request((("system", prompt), ("user", text)), section, numbers)
    if rng.random() < FOREIGN_SYSTEM_SHARE:
        system = values.fill(rng.choice(table["foreign_system"]), rng)
        return Request((("system", system), ("user", prompt)), section, numbers)
    return Request((("user", prompt),), section, numbers)


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
