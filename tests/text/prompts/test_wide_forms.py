"""What a prompt of the next bundled model asks for, in all of its data's wordings: known rightly, or not known."""

import json
from collections import Counter
from functools import cache

import pytest

from redraft.bundled.card import WIDE
from redraft.bundled.data.wide.records import training_record
from redraft.evaluation.tasks import WIDE_SETS
from redraft.text import ReadPrompt
from redraft.text.prompts.names import find_schema, read_names
from redraft.weights.card import read_card, write_card


@cache
def cases() -> list[tuple[str, str, str, int]]:
    """Kind, prompt, answer and number of messages of the test sets and of training's records."""
    told = [
        (name, case.prompt, case.answer, len(case.messages) or 1)
        for name, of in WIDE_SETS.items()
        for case in of.cases()
    ]
    for index in range(400):
        record = training_record(7, index)
        told.append((record.kind, record.messages[-1][1], record.answer, len(record.messages)))
    return told


def warnings(prompt: str, answer: str) -> tuple[str, ...]:
    task = WIDE.task_of(prompt)
    read = ReadPrompt([], tuple(WIDE.prompt_warnings(task, "user", 100)), task=task, text=prompt, refusal=WIDE.refusal)
    return read.warnings + read.check(answer, "stop", num_tokens=9, steps_per_canvas=(5,), max_steps=48)


def test_what_is_asked_for_is_known_or_not_but_never_wrongly():
    known: Counter[str] = Counter()
    for kind, prompt, answer, _ in cases():
        task = WIDE.task_of(prompt)
        if task is None or not task.fields or answer == WIDE.refusal or task.is_reworded:
            continue
        known[kind] += 1
        found = json.loads(answer)
        assert isinstance(found, list) is task.is_array, prompt
        for one in found if task.is_array else [found]:
            # "make and model" may be one name or two.
            assert " and ".join(task.fields) == " and ".join(one), prompt
        assert prompt[task.start : task.start + len(task.text)] == task.text
    for name in ("seen", "values", "names", "long"):
        assert known[name] >= 0.85 * sum(kind == name for kind, *_ in cases()), name


def test_right_answers_have_no_warnings_but_what_does_not_stand_in_the_text():
    for _, prompt, answer, _ in cases():
        told = [one for one in warnings(prompt, answer) if "does not stand in the text" not in one]
        if (task := WIDE.task_of(prompt)) is not None and task.is_reworded:
            # Read from its words, now and then wrongly: see test_wording.py.
            continue
        if answer == WIDE.refusal:
            assert any("not what it is for" in one for one in told)
            continue
        # A text that says nothing is said to be one.
        assert [one for one in told if "no text after its request" not in one] == [], prompt


@pytest.mark.parametrize(
    ("listed", "names"),
    [
        ("name", ("name",)),
        ("name, city and due date", ("name", "city", "due date")),
        ('"name", `city`, **due date**', ("name", "city", "due date")),
        ("\n- name\n* due_date\n", ("name", "due_date")),
        ("name (of the buyer, if any); city [where]", ("name", "city")),
        ("[x, y]", ("x", "y")),
        ("x | y", ("x", "y")),
        (" , , ", ()),
        # Not clear.
        ("please the name", None),
        ("name: who it is, city", None),
        ("name - who it is", None),
        ("- name\nand more", None),
        ("one two three four five six seven", None),
    ],
)
def test_a_list_of_names_is_read_where_it_is_clear(listed, names):
    assert read_names(listed) == names


@pytest.mark.parametrize(
    ("prompt", "keys"),
    [
        ('x {"type": "object", "properties": {"a": {"type": "string"}, "b": {}}} y', ("a", "b")),
        ('{"a": "", "b": null}', ("a", "b")),
        ("{ a: string; b: number }", ("a", "b")),
        ("class Record:\n    a: str\n    b: int\ntext", ("a", "b")),
        ('{"a": "Ana"}', None),
        ("no schema {", None),
    ],
)
def test_a_schema_is_found_with_its_keys(prompt, keys):
    found = find_schema(prompt)
    assert (None if found is None else found[2]) == keys


def test_its_card_is_read_as_it_was_written(tmp_path):
    write_card(tmp_path, WIDE)
    assert read_card(tmp_path) == WIDE


def test_a_long_prompt_takes_no_long_time():
    # Nothing that is asked of every prompt may take longer the longer it is, but linearly.
    for prompt in ("a, " * 30_000, "\n" * 90_000, "Extract " * 9_000, "{" * 90_000, "Find " + "a " * 40_000):
        assert WIDE.task_of(prompt) is None
