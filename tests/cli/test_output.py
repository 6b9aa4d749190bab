"""Tables have words where `--json` has keys."""

import pytest

from redraft.cli.output import describe, format_value, summary_rows
from redraft.utils.words import counted


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("tokens_per_second", "tokens/s"),
        ("canvas_steps_per_second", "canvas steps/s"),
        ("ms_per_token", "ms per token"),
        ("first_canvas_ms", "first canvas, ms"),
        ("exact_unseen", "exact, unseen"),
        ("character_error_rate_held_out_values", "character error rate, held out values"),
        ("valid_json", "valid JSON"),
        ("field_f1", "field F1"),
    ],
)
def test_keys_are_words(key, words):
    assert describe(key) == words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (4146.262, "4,146"),
        (17.232, "17.2"),
        (0.8712, "0.8712"),
        (1.0, "1"),
        (1234567, "1,234,567"),
        (None, "unknown"),
        ("extract", "extract"),
        ({}, "none"),
        ({"seconds": 34.471, "tokens_per_second": None}, "seconds 34.5, tokens/s unknown"),
    ],
)
def test_numbers_are_short(value, text):
    assert format_value(value) == text


def test_a_summary_has_a_row_for_each_group_and_none_for_what_is_not_known():
    summary = {
        "exact": 0.5,
        "repetition": None,
        "groups": {"easy": {"exact": 1.0, "field_f1": 0.5}},
        "settings": {"seed": 0, "max_new_tokens": 4},
    }
    assert list(summary_rows(summary)) == [
        ("exact", "0.5"),
        ("easy", "exact 1, field F1 0.5"),
        ("settings", "seed=0, max_new_tokens=4"),
    ]
    assert list(summary_rows({"settings": {}})) == [("settings", "the model's own")]


def test_one_is_not_many():
    assert [counted(number, "row") for number in (0, 1, 2000)] == ["0 rows", "1 row", "2,000 rows"]
    assert [counted(number, "canvas", "canvases") for number in (1, 2)] == ["1 canvas", "2 canvases"]
