"""Generated tasks: puzzles that have one solution, needles where they should be, repetition counted by hand."""

import json

import pytest

from redraft.evaluation.needle import needle_cases, score_needle
from redraft.evaluation.scores import repetition
from redraft.evaluation.sudoku import GRADES, PROMPT, score_sudoku, sudoku_cases

PUZZLES = sudoku_cases(2)


def solve(cells: str) -> list[str]:
    """Every solution, by trying digits cell by cell: slow, and unlike what the generator does."""
    at = cells.find(".")
    if at < 0:
        return [cells]
    row, column = divmod(at, 9)
    peers = {
        cells[i]
        for i in range(81)
        if i // 9 == row or i % 9 == column or (i // 27 == row // 3 and i % 9 // 3 == column // 3)
    }
    return [s for digit in "123456789" if digit not in peers for s in solve(cells[:at] + digit + cells[at + 1 :])]


def test_puzzles_are_the_same_every_time_and_of_their_grade():
    assert sudoku_cases(2) == PUZZLES
    assert [case.group for case in PUZZLES] == [grade for grade in GRADES for _ in range(2)]
    for case in PUZZLES:
        given = 81 - case.prompt.removeprefix(PROMPT).count(".")
        assert GRADES[case.group] <= given <= GRADES[case.group] + 2


@pytest.mark.parametrize("case", PUZZLES[:4], ids=lambda case: case.group)
def test_a_puzzle_has_its_answer_for_its_only_solution(case):
    found = solve(case.prompt.removeprefix(PROMPT).replace("\n", ""))
    assert found == [case.answer.replace("\n", "")]


def test_sudoku_scores():
    case = PUZZLES[0]
    clues = case.prompt.removeprefix(PROMPT).replace("\n", "")
    empty = clues.count(".")
    assert score_sudoku(case, case.answer + "\n") == {"exact": 1, "cells_right": 1, "clues_kept": 1}
    at = clues.index(".")
    solution = case.answer.replace("\n", "")
    wrong = solution[:at] + "x" + solution[at + 1 :]
    scores = score_sudoku(case, wrong)
    assert scores == {"exact": 0, "cells_right": pytest.approx((empty - 1) / empty), "clues_kept": 1}
    at = clues.index(next(clue for clue in clues if clue != "."))
    changed = solution[:at] + "x" + solution[at + 1 :]
    assert score_sudoku(case, changed) == {"exact": 0, "cells_right": 1, "clues_kept": 0}
    assert score_sudoku(case, solution[:-1]) == {"exact": 0, "cells_right": 0, "clues_kept": 0}


def words(text: str) -> int:
    return len(text.split())


def test_needles_lie_where_they_should():
    cases = needle_cases((60, 300), (0.0, 0.5, 1.0), "extract", words)
    assert len(cases) == 6
    for case, (length, depth) in zip(cases, [(n, d) for n in (60, 300) for d in (0, 0.5, 1)], strict=True):
        answer = json.loads(case.answer)
        text = case.prompt.split(": ", 1)[1]
        place = text.index(f"On that day {answer['amount']} was paid to {answer['name']}.") / len(text)
        assert place == pytest.approx(depth, abs=0.25 if length == 60 else 0.1)
        assert length <= words(case.prompt) <= length + 20
        assert case.group == f"{length} tokens, depth {depth:g}"
        assert score_needle(case, case.answer) == {"exact": 1, "found": 1}
        assert score_needle(case, f"It was {answer['amount']}.") == {"exact": 0, "found": 1}
        assert score_needle(case, "no idea") == {"exact": 0, "found": 0}


def test_needles_as_questions():
    (case,) = needle_cases((40,), (1.0,), "question", words)
    assert case.prompt.endswith("Write only the amount.")
    assert score_needle(case, case.answer) == {"exact": 1, "found": 1}


@pytest.mark.parametrize(
    ("lengths", "depths", "form", "message"),
    [
        ((10,), (0.5,), "riddle", "the form is 'riddle', must be one of question, extract"),
        ((0,), (0.5,), "extract", "a length is 0, must be at least 1 token"),
        ((10,), (1.5,), "extract", "a depth is 1.5, must lie between 0 and 1"),
    ],
)
def test_needles_that_cannot_be_hidden(lengths, depths, form, message):
    with pytest.raises(ValueError, match=message):
        needle_cases(lengths, depths, form, words)


def test_repetition_between_neighbours():
    assert repetition(range(8), 8) is None
    assert repetition(range(16), 8) == 0
    assert repetition([*range(8), *range(8)], 8) == 1
    # Of five runs of four in the second canvas, 0123 and 1234 are in the first.
    assert repetition([*range(8), *range(5), 20, 21, 22], 8) == pytest.approx(2 / 5)
    # A canvas is compared with the one before it, not with earlier ones; a rest too short for a run does not count.
    assert repetition([*range(8), *range(8, 16), *range(8)], 8) == 0
    assert repetition([*range(8), *range(3)], 8) is None
