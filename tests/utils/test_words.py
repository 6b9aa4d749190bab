"""Numbers and their nouns agree."""

import pytest

from redraft.utils.words import counted, counted_of


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (1000, "1,000 rows"), (1_000_001, "1,000,001 rows")],
)
def test_a_number_and_its_noun(count, words):
    assert counted(count, "row") == words


def test_a_noun_that_takes_es_or_has_another_plural():
    assert [counted(n, "canvas") for n in (1, 2)] == ["1 canvas", "2 canvases"]
    assert [counted(n, "causal pass") for n in (1, 2)] == ["1 causal pass", "2 causal passes"]
    assert [counted(n, "entry", "entries") for n in (1, 2)] == ["1 entry", "2 entries"]


@pytest.mark.parametrize(
    ("count", "total", "words"), [(1, 1, "1 of 1 row was"), (1, 5, "1 of 5 rows was"), (2, 5, "2 of 5 rows were")]
)
def test_a_part_and_its_verb(count, total, words):
    assert counted_of(count, total, "row", "was", "were") == words
