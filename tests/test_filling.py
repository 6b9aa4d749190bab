"""Filling and editing: what is fixed comes back byte for byte, whatever a model says."""

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import redraft
from redraft.constraints.automaton import build_automaton
from redraft.constraints.build import ConstraintSpec, build
from redraft.constraints.language.blanks import MAX_MARK, filled_language, read_blanks, split_blanks
from redraft.constraints.language.characters import Characters
from redraft.constraints.language.expression import Expressions
from redraft.diffusion.settings import SamplerSettings
from redraft.diffusion.start import CanvasStart
from redraft.generation.loop import generate
from tests.fakes.checkpoints import tiny_checkpoint
from tests.fakes.constraints import TOKENS, VOCABULARY
from tests.fakes.models import tiny_model

LETTERS = 'abc{}":, 1é'


@pytest.mark.parametrize("cases", [60, pytest.param(1_000, marks=pytest.mark.slow)])
def test_pinned_text_comes_back_byte_for_byte_in_random_cases(cases):
    """Random parts, cut into tokens at random and pinned on the left, blanks of length 0 included."""
    model, rng, empty = tiny_model(max_context=160), random.Random(0), 0
    for seed in range(cases):
        parts = ["".join(rng.choices(LETTERS, k=rng.randint(1, 4))) for _ in range(rng.choice([2, 2, 3]))]
        parts[0], parts[-1] = rng.choice(["", parts[0]]), rng.choice(["", parts[-1]])
        limit = rng.randint(0, 3)
        constraint = build(ConstraintSpec(kind="filled", choices=tuple(parts), limit=limit), VOCABULARY)
        left = cut(parts[0].encode(), rng)
        start = CanvasStart.holding(left[: rng.randint(0, min(8, len(left)))])
        chosen = SamplerSettings.of(
            max_new_tokens=40, canvas_length=rng.choice([8, 40]), steps=2, seed=seed, temperature=rng.choice([0.0, 1.0])
        )
        generation = generate(model, [3, 4], chosen, constraint, start=start)
        text = VOCABULARY.text_of(generation.token_ids).decode()
        values = read_blanks(parts, text)
        assert all(len(value) <= limit for value in values)
        assert "".join(map("".join, zip(parts, (*values, ""), strict=True))) == text
        empty += "" in values
    assert empty > cases // 10


def cut(text: bytes, rng: random.Random) -> list[int]:
    """Tokens of a text, of those that fit one at random each time."""
    found: list[int] = []
    while text:
        fitting = [at for at, token in enumerate(TOKENS) if token and text.startswith(token)]
        found.append(rng.choice(fitting))
        text = text[len(TOKENS[found[-1]] or b"") :]
    return found


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.text("ab\n", min_size=1, max_size=10), min_size=2, max_size=3),
    st.lists(st.text("abc\n", max_size=5), min_size=2, max_size=2),
    st.sampled_from([None, 3]),
    st.booleans(),
)
def test_what_stands_in_a_blank_is_never_in_doubt(parts, values, limit, has_lines):
    """A text is of the language if each blank, ended where what follows it first begins, is one."""
    table = Expressions()
    automaton = build_automaton(table, filled_language(parts, Characters(table), limit=limit, has_lines=has_lines))
    text = "".join(map("".join, zip(parts, (*values[: len(parts) - 1], ""), strict=True)))
    try:
        found = read_blanks(parts, text)
    except (ValueError, AssertionError):
        found = None
    fits = found is not None and text == "".join(map("".join, zip(parts, (*found, ""), strict=True)))
    fits = fits and all(limit is None or len(value) <= limit for value in found)
    fits = fits and (has_lines or not any("\n" in value for value in found))
    assert automaton.contains(text.encode()) == fits
    assert MAX_MARK > 1


def test_blanks_are_found_by_their_mark():
    assert split_blanks("Dear ___, your order _____ is") == ("Dear ", ", your order ", " is")
    assert split_blanks("___") == ("", "")
    assert split_blanks("a [?] b___", "[?]") == ("a ", " b___")
    for text, mark, message in (
        ("no blank", "___", "the text has no blank: mark it with ___"),
        ("a [?][?] b", "[?]", "two blanks stand side by side"),
        ("a", "", "the mark of a blank is ''"),
    ):
        with pytest.raises(ValueError, match=message):
            split_blanks(text, mark)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda model: model.fill("a ___", limit=0),
            "limit is 0, must be an integer of at least 1, or None",
        ),
        (lambda model: model.fill("a ___", limit=-1), "limit is -1, must be"),
        (lambda model: model.fill("a ___", limit=2.5), "limit is 2.5, must be"),
        (lambda model: model.fill("a ___", limit="5"), "limit is '5', must be"),
        (lambda model: model.fill("a ___", blank=5), "the mark of a blank is 5, must be a text"),
        (lambda model: model.edit(5, 0, 1), "the text is 5, must be text"),
        (lambda model: model.edit("abc", 0, 2, instruction=5), "the instruction is 5, must be text"),
        (lambda model: model.edit("abc", 0.5, 2), "the span is 0.5:2, must lie within the text's 3 characters"),
        (lambda model: model.edit("abc", "0", 2), "the span is '0':2, must lie"),
        (lambda model: model.edit("abc", 0, 2, limit=0), "limit is 0, must be"),
        (lambda model: model.fill("a ___", limit=100_000), "the limit of 100000 characters is too large (this c"),
        (lambda model: model.edit("abc", 0, 2, strength=True), "strength is True, must be a number"),
        (lambda model: model.edit("abc", 0, 2, strength="x"), "strength is 'x', must be a number above 0"),
        (lambda model: model.edit("abc", 0, 2, strength=2), "strength is 2, must be above 0 and at most 1"),
    ],
)
def test_what_is_no_blank_span_or_limit_is_a_clear_error(tmp_path, call, message):
    model = redraft.load(tiny_checkpoint(tmp_path))
    with pytest.raises(ValueError, match=re.escape(message)):
        call(model)
