"""The items of a text: what stands in it, in order, without what is said around them where that is clear."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redraft.text.parts.items import split_items
from redraft.text.parts.windows import split_windows
from redraft.text.prompts.names import find_schema
from redraft.text.prompts.wording import read_fields, read_request


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("- flour, 2 kg\n- eggs, 12\n- salt", ["- flour, 2 kg", "- eggs, 12", "- salt"]),
        ("To buy:\n1. flour\n2. eggs\nThanks!", ["1. flour", "2. eggs"]),
        ("1) flour\n   milled\n2) eggs\n   brown", ["1) flour\n   milled", "2) eggs\n   brown"]),
        ("Ana, Rome\nBen, Paris", ["Ana, Rome", "Ben, Paris"]),
        ("09:00 start\n\n10:30 break\n\n12:00 lunch", ["09:00 start", "10:30 break", "12:00 lunch"]),
        ("1. January: 12 EUR 2. March: 9 EUR", ["1. January: 12 EUR", "2. March: 9 EUR"]),
        ("Ana: 030 1; Ben: 040 2; Cleo: 050 3", ["Ana: 030 1", "Ben: 040 2", "Cleo: 050 3"]),
        ("Ana lives in Rome. Dr. Ben lives in Bonn.", ["Ana lives in Rome.", "Dr. Ben lives in Bonn."]),
        (
            "Flight LH 1 to Rome. Seat 2A. Flight LH 2 to Oslo. Seat 3B.",
            ["Flight LH 1 to Rome. Seat 2A.", "Flight LH 2 to Oslo. Seat 3B."],
        ),
        ('{"a": 1}\n{"a": 2}', ['{"a": 1}', '{"a": 2}']),
        ('[{"a": 1}, {"a": 2}]', ['{"a": 1}', '{"a": 2}']),
        ('{"a": 1,\n "b": 2}', ['{"a": 1,\n "b": 2}']),
        ("<item>flour</item>\n<item>eggs</item>", ["<item>flour</item>", "<item>eggs</item>"]),
        ("name: Ana\ncity: Rome\n\nname: Ben\ncity: Bonn", ["name: Ana\ncity: Rome", "name: Ben\ncity: Bonn"]),
        ("name: Ana\ncity: Rome\n---\nname: Ben", ["name: Ana\ncity: Rome", "name: Ben"]),
        ("name: Ana\nage: 31\nname: Ben\nage: 40", ["name: Ana\nage: 31", "name: Ben\nage: 40"]),
        ("- name: Ana\n- age: 31", ["- name: Ana\n- age: 31"]),
        ("Name: Ana Berg\nAge: 31 years", ["Name: Ana Berg\nAge: 31 years"]),
        ("January: 12 EUR\nMarch: 9 EUR", ["January: 12 EUR", "March: 9 EUR"]),
        ("- a, Rome\n- b, Bonn\nIn Italy:\n- c, Pisa", ["- a, Rome", "- b, Bonn", "- c, Pisa"]),
        ("1. Karl\n   - Bonn\n2. Nina\n   - Leeds", ["1. Karl\n   - Bonn", "2. Nina\n   - Leeds"]),
        (
            "Hello team,\n\nname: oak\nsum: 2\n\nname: elm\nsum: 9\n\nThanks!\nMona",
            ["name: oak\nsum: 2", "name: elm\nsum: 9"],
        ),
        (
            "Dear Ms Alder,\n\nthe holidays:\n- Karl: 3 July\n- Nina: 10 August\n\nBest wishes\nBernd\nSales",
            ["- Karl: 3 July", "- Nina: 10 August"],
        ),
        (
            "Dear Ms Alder,\n\nthe holidays. Karl goes on 3 July. Nina goes on 10 August.\n\nBest wishes\nBernd\nSales",
            ["the holidays.", "Karl goes on 3 July.", "Nina goes on 10 August."],
        ),
        ("Karl (31), Nina (44), Otto (58)", ["Karl (31)", "Nina (44)", "Otto (58)"]),
        ("Only this", ["Only this"]),
    ],
)  # fmt: skip
def test_the_items_of_a_text(text, items):
    assert list(split_items(text).texts) == items


@pytest.mark.parametrize(
    ("text", "fields", "shown"),
    [
        ("name,age\nAna,31\nBen,40", (), ["name,age\nAna,31", "name,age\nBen,40"]),
        (
            "Title | Author\nEmma | Austen\nDune | Herbert",
            ("author",),
            ["Title | Author\nEmma | Austen", "Title | Author\nDune | Herbert"],
        ),
        (
            "date,item,sum\n2024-03-01,tea,18.50\n2024-03-04,inn,129.99",
            (),
            ["date,item,sum\n2024-03-01,tea,18.50", "date,item,sum\n2024-03-04,inn,129.99"],
        ),
        ("who, sum\nAna, 1,250 EUR\nBo, 30 EUR", (), ["who, sum\nAna, 1,250 EUR", "who, sum\nBo, 30 EUR"]),
        ("| A |\n| --- |\n| x |\n| z |", (), ["| A |\n| --- |\n| x |", "| A |\n| --- |\n| z |"]),
        ("Stock:\nName\tNumber\nink\t3\npen\t4\nBye", (), ["Name\tNumber\nink\t3", "Name\tNumber\npen\t4"]),
        ("<tr><th>a</th></tr>\n<tr><td>1</td></tr>", (), ["<tr><th>a</th></tr>\n<tr><td>1</td></tr>"]),
        # Without names the first row is one like the others.
        ("Emma | Austen\nDune | Herbert", (), ["Emma | Austen", "Dune | Herbert"]),
        ("Ana Berg, Rome\nBen Stone, Paris", ("name", "city"), ["Ana Berg, Rome", "Ben Stone, Paris"]),
    ],
)  # fmt: skip
def test_the_rows_of_a_table_are_shown_below_its_head(text, fields, shown):
    assert list(split_items(text, fields).shown()) == shown


@pytest.mark.parametrize(
    ("text", "are_certain"),
    [("1. a\n2. b", True), ("x,y\n1,2\n3,4", True), ("Hello,\nAna, Rome\nBen, Bonn\nBye", False), ("A b. C d.", False)],
)
def test_what_is_an_item_by_its_form_is_told_from_what_may_be_none(text, are_certain):
    assert split_items(text).are_certain is are_certain


WORDS = st.text("ab1Z.,;:|-*#=<>{}[]\"'\t\n ", max_size=60)


@given(WORDS, st.lists(WORDS, max_size=2))
def test_whatever_a_text_is_its_items_are_of_it_and_in_order(text, fields):
    items, at = split_items(text, fields), 0
    assert items.texts
    for item in items.texts:
        for line in item.splitlines():
            found = text.find(line.strip(), at)
            assert found >= 0
            at = found


SEEDS = (
    "! ",
    "Ab cd. ",
    "<a>",
    "„a",
    '"a',
    "'a ",
    "\n",
    " ",
    "- x\n",
    "{",
    "{a:b",
    "(",
    "a|b\n",
    "-|",
    "1. ",
    "json ",
    "; ",
)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("before", "behind"), [("json ", ""), ("", " json"), ("Extract a as a JSON array: ", "")])
def test_no_text_takes_long_to_be_taken_apart(seed, before, behind):
    """One request must not hold up others: what grows with the square of a text's length takes minutes here."""
    text = before + seed * (100_000 // len(seed)) + behind
    started = time.process_time()
    split_items(text)
    split_windows(text, 90, 30)
    read_request(text)
    read_fields(text)
    find_schema(text)
    assert time.process_time() - started < 20


def test_a_type_that_is_never_closed_is_found_out_at_once():
    started = time.process_time()
    assert find_schema("log {id:" + "deadbeef01234567:" * 40 + " x") is None
    assert time.process_time() - started < 20
