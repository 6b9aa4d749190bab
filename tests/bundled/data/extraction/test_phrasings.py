"""The little language of phrasings: what it means, and what it refuses."""

import random

import pytest

from redraft.bundled.data.extraction.phrasings import KINDS, Alternatives, Slot, parse, read_phrasings
from redraft.bundled.data.extraction.records import HERE, seen_phrasings, unseen_phrasings
from redraft.bundled.data.extraction.values import DRAW

FILES = ("seen_prose.txt", "seen_notes.txt", "unseen.txt")


def all_expansions(parts) -> set[str]:
    """Every text that a phrasing can become, slots as <field>."""
    texts = {""}
    for part in parts:
        if isinstance(part, Alternatives):
            endings = set().union(*(all_expansions(option) for option in part.options))
        else:
            endings = {f"<{part.field}>" if isinstance(part, Slot) else part}
        texts = {text + ending for text in texts for ending in endings}
    return texts


def expansions(line: str) -> set[str]:
    return all_expansions(parse("contact", line).parts)


@pytest.mark.parametrize(
    ("line", "texts"),
    [
        ("{name}", {"<name>"}),
        ("Hi {name}, write to {email}.", {"Hi <name>, write to <email>."}),
        ("{Hi|Hello} {name}", {"Hi <name>", "Hello <name>"}),
        ("{name}{, {city}|}", {"<name>, <city>", "<name>"}),
        ("{name}{|!}", {"<name>", "<name>!"}),
        ("{{name}|{email}}", {"<name>", "<email>"}),
        ("{a|{b|{c|d}}} {name}", {"a <name>", "b <name>", "c <name>", "d <name>"}),
        ("{x|y}{1|2}{name}", {"x1<name>", "x2<name>", "y1<name>", "y2<name>"}),
        (r"{name}\n{city}", {"<name>\n<city>"}),
        ("| {name} | [{city}] |", {"| <name> | [<city>] |"}),
        ("{name} and {name}", {"<name> and <name>"}),
        ("{name|email} {name}", {"name <name>", "email <name>"}),
        ("{name}{||}", {"<name>"}),
    ],
)
def test_meaning(line, texts):
    assert expansions(line) == texts


@pytest.mark.parametrize("line", ["{a|b} {name}{, {city}|; {email}|}{ ({role}{ at {company}|})|}"])
def test_every_choice_is_taken_and_none_more_often(line):
    phrasing, rng = parse("contact", line), random.Random(0)
    drawn = [
        "".join(f"<{part.field}>" if isinstance(part, Slot) else part for part in phrasing.expand(rng))
        for _ in range(2000)
    ]
    assert set(drawn) == expansions(line)
    assert 900 < sum(text.startswith("a") for text in drawn) < 1100
    assert 570 < sum("<city>" in text for text in drawn) < 770


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{nme}", r"'nme' is not a field of this kind \(name, email, .*\) in '\{nme\}'"),
        ("{amount}", "'amount' is not a field of this kind"),
        ("{}", "'' is not a field of this kind"),
        ("{ name }", "' name ' is not a field of this kind"),
        ("{Mr. {name}}", "'Mr. ' is not a field of this kind"),
        ("{name", r"'\{' without '\}' in '\{name'"),
        ("{name} {a|b", r"'\{' without '\}' in"),
        ("{name} {a|{city}", r"'\{' without '\}' in"),
        ("name}", r"'\}' without '\{' at character 4 of 'name\}'"),
        ("{name}}", r"'\}' without '\{' at character 6 of"),
        ("no slot", "phrasing without a slot: 'no slot'"),
        ("{a|b}", "phrasing without a slot"),
        ("", "phrasing without a slot"),
    ],
)
def test_errors_say_what_is_wrong(line, message):
    with pytest.raises(ValueError, match=message):
        parse("contact", line)


@pytest.mark.parametrize("line", ["{name{email}}", "{{a|b}name}", "{name{a|}}", "{{email}}"])
def test_braces_that_are_neither_slot_nor_choice_are_refused(line):
    with pytest.raises(ValueError, match="not a field"):
        parse("contact", line)


def test_an_unknown_kind():
    with pytest.raises(ValueError, match=r"unknown kind 'letter'; known: contact, order"):
        parse("letter", "{name}")


def test_a_file_has_headings_and_one_phrasing_a_line(tmp_path):
    path = tmp_path / "some.txt"
    path.write_text("# contact\n{name}\n\n{email} #1\n# order\n{order_id}\n", encoding="utf-8")
    assert [(p.kind, p.parts) for p in read_phrasings(path)] == [
        ("contact", (Slot("name"),)),
        ("contact", (Slot("email"), " #1")),
        ("order", (Slot("order_id"),)),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("# contact\n{name}\n\n{amount}\n", r"some\.txt:4: 'amount' is not a field"),
        ("# letter\n{name}\n", r"some\.txt:2: unknown kind 'letter'"),
        ("{name}\n# contact\n", r"some\.txt:1: unknown kind ''"),
        ("# contact\n{name\n", r"some\.txt:2: '\{' without"),
    ],
)
def test_errors_of_a_file_name_file_and_line(tmp_path, content, message):
    path = tmp_path / "some.txt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_phrasings(path)


# --- the files ----------------------------------------------------------------------------------------------------


def fields_in(parts) -> set[str]:
    found = set()
    for part in parts:
        if isinstance(part, Slot):
            found.add(part.field)
        elif isinstance(part, Alternatives):
            found |= set().union(*(fields_in(option) for option in part.options))
    return found


@pytest.mark.parametrize("name", FILES)
def test_every_file_has_every_kind_with_all_its_fields(name):
    fields: dict[str, set[str]] = {}
    for phrasing in read_phrasings(HERE / name):
        fields.setdefault(phrasing.kind, set()).update(fields_in(phrasing.parts))
    assert fields == {kind: set(names) for kind, names in KINDS.items()}


def test_every_field_can_be_drawn_and_every_drawable_is_a_field():
    assert {field for fields in KINDS.values() for field in fields} == set(DRAW)


def test_the_task_has_all_lines_of_its_files():
    def lines(name: str) -> int:
        return sum(bool(line.strip()) and not line.startswith("# ") for line in (HERE / name).read_text().splitlines())

    assert len(seen_phrasings()) == lines("seen_prose.txt") + lines("seen_notes.txt")
    assert len(unseen_phrasings()) == lines("unseen.txt")


def test_no_unseen_phrasing_is_seen():
    assert len(set(seen_phrasings())) == len(seen_phrasings())
    assert not set(seen_phrasings()) & set(unseen_phrasings())
    # Nor with other kinds, blanks or case.
    plain = [
        {"".join(repr(phrasing.parts).lower().split()) for phrasing in part}
        for part in (seen_phrasings(), unseen_phrasings())
    ]
    assert not plain[0] & plain[1]
