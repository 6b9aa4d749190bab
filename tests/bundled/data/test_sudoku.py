"""Sudoku: puzzles have one solution and need all that is given, and their tokens say where a cell stands."""

import random

import pytest

from redraft.bundled.data.sudoku.examples import SudokuExamples, example
from redraft.bundled.data.sudoku.puzzles import CELLS, PEERS, UNITS, Puzzle, minimal_puzzle, solve
from redraft.bundled.data.sudoku.tokens import (
    ANSWER_TOKENS,
    PROMPT_TOKENS,
    VOCAB_SIZE,
    digit_token,
    prompt_tokens,
    write_tokenizer,
)
from redraft.evaluation.sudoku import clues_of, sudoku_cases
from redraft.text import TextTokenizer

MINIMAL = [minimal_puzzle(random.Random(seed)) for seed in range(4)]


def all_solutions(grid: list[int]) -> list[list[int]]:
    """Every solution, by trying digits in the cell with the fewest choices: unlike the generator, without masks."""
    choices = {cell: {*range(1, 10)} - {grid[peer] for peer in PEERS[cell]} for cell in range(CELLS) if not grid[cell]}
    if not choices:
        return [grid]
    cell = min(choices, key=lambda cell: len(choices[cell]))
    return [s for digit in choices[cell] for s in all_solutions([*grid[:cell], digit, *grid[cell + 1 :]])]


def check(puzzle: Puzzle) -> None:
    for unit in UNITS:
        assert sorted(puzzle.solution[cell] for cell in unit) == [*range(1, 10)]
    assert all_solutions(list(puzzle.grid)) == [list(puzzle.solution)]


@pytest.mark.parametrize("puzzle", MINIMAL, ids=range(4))
def test_a_minimal_puzzle_has_one_solution_and_needs_every_given_cell(puzzle):
    check(puzzle)
    assert solve(puzzle.grid) == [list(puzzle.solution)]
    for cell in puzzle.given:
        assert len(solve(Puzzle(puzzle.solution, puzzle.given - {cell}).grid)) == 2


def test_given_more_cells_and_disguised_it_still_has_one():
    for seed, puzzle in enumerate(MINIMAL):
        rng = random.Random(seed)
        other = puzzle.with_given(32, rng).disguised(rng)
        assert len(other.given) == 32
        assert other.solution != puzzle.solution
        check(other)
    assert puzzle.with_given(5, rng) == puzzle


def test_contradictions_and_open_grids():
    assert solve([1, 1] + [0] * 79) == []
    # Nothing is left for the ninth cell of the first row.
    assert solve([1, 2, 3, 4, 5, 6, 7, 8, 0, *[0] * 8, 9, *[0] * 63]) == []
    assert len(solve([0] * CELLS, 3)) == 3


def test_the_template_writes_a_puzzle_as_cells(tmp_path):
    write_tokenizer(tmp_path)
    tokenizer = TextTokenizer.load(tmp_path)
    assert tokenizer.vocab_size == VOCAB_SIZE
    for case in sudoku_cases(1):
        clues = clues_of(case.prompt)
        grid = [0 if clue == "." else int(clue) for clue in clues]
        expected = prompt_tokens(grid)
        assert len(expected) == PROMPT_TOKENS
        for text in (case.prompt, clues):
            assert tuple(tokenizer.encode_chat([{"role": "user", "content": text}])) == expected
    puzzle = MINIMAL[0]
    answer = example(puzzle, puzzle.given).answer
    assert len(answer) == ANSWER_TOKENS
    assert tokenizer.decode(answer) == "".join(map(str, puzzle.solution))
    assert tokenizer.encode("19") == [digit_token(1), digit_token(9)]
    assert tokenizer.token_text(prompt_tokens([0] * 80 + [5])[-1]) == "I9=5"


def test_examples_are_the_same_for_the_same_step_and_pin_what_is_given():
    source = SudokuExamples(4)
    found = [one for step in range(5) for one in source(step)]
    assert [one for step in range(5) for one in SudokuExamples(4)(step)] == found
    is_whole = []
    for one in found:
        given = {at for at, token in enumerate(one.prompt[1:]) if token in prompt_of(one, at)}
        assert one.pinned <= given
        is_whole.append(one.pinned == given)
    # Most examples pin all that is given, some only a part.
    assert 0.5 < sum(is_whole) / len(found) < 1
    assert len({one.prompt for one in found}) == len(found)


def prompt_of(one, cell: int) -> tuple[int, ...]:
    """The token of a cell that holds its right digit."""
    digits = [0] * CELLS
    digits[cell] = one.answer[cell] - digit_token(0)
    return (prompt_tokens(digits)[1 + cell],)


def test_what_is_tested_is_not_trained_on():
    source = SudokuExamples(8)
    trained = {one.answer[:CELLS] for step in range(10) for one in source(step)}
    validated = {one.answer[:CELLS] for one in source.validation(20)}
    tested = {tuple(int(c) + digit_token(0) for c in "".join(case.answer.split())) for case in sudoku_cases(5)}
    assert (len(trained), len(validated), len(tested)) == (80, 20, 15)
    assert not trained & validated | trained & tested | validated & tested
