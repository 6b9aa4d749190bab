"""The notation of the tables, and that every line of every table can be read."""

import random

import pytest

from redraft.bundled.data.wide.fields import read_fields
from redraft.bundled.data.wide.grammar import TABLES, parse, read_table, read_templates
from redraft.bundled.data.wide.values import Values

GIVEN = {"text", "fields", "schema", "kind", "form"}
NOT_TEMPLATES = {"fields", "names", "kinds", "alike", "words"}


def filled(line: str, seed: int = 0) -> str:
    return parse(line).fill(random.Random(seed), lambda name: f"<{name}>")


def test_choices_references_and_numbers():
    assert filled("plain [a|b] text") == "plain [a|b] text"
    assert filled("{city}\\n{@name}") == "<city>\n<@name>"
    assert {filled("{a|{b|c}|}", seed) for seed in range(60)} == {"a", "b", "c", ""}
    assert {filled("{1..3}", seed) for seed in range(40)} == {"1", "2", "3"}
    drawn = filled("{#A-99}")
    assert drawn[0].isupper()
    assert drawn[1] == "-"
    assert drawn[2:].isdigit()


def test_names_and_literals_include_those_of_alternatives():
    template = parse("x {a|{b} y} {c}")
    assert template.names() == {"b", "c"}
    assert set(template.literals()) == {"x ", "a", " y", " "}


@pytest.mark.parametrize("line", ["{a", "a}", "{a|{b}", "{}", "{{a|b}c}"])
def test_a_line_whose_braces_do_not_match_is_refused(line: str):
    with pytest.raises(ValueError, match=r"brace|without"):
        parse(line)


@pytest.mark.parametrize("name", sorted(path.stem for path in TABLES.glob("*.txt") if path.stem not in NOT_TEMPLATES))
def test_every_reference_of_a_table_is_known(name: str):
    values, rng = Values(), random.Random(0)
    for templates in read_templates(name).values():
        for template in templates:
            for reference in template.names():
                if reference[0] in "@~":
                    assert values.fill(parse(f"{{{reference}}}"), rng)
                elif reference[0] != "#" and ".." not in reference:
                    assert reference in read_fields() or reference in GIVEN


def test_every_field_has_a_type_and_no_name_twice():
    types = read_table("types")
    for field in read_fields().values():
        assert field.type in types
        assert len(set(field.names)) == len(field.names)
    assert len({name for field in read_fields().values() for name in field.names}) > 1000
