"""Puzzles as the examples of a training step, with their given cells pinned."""

import random
from collections.abc import Sequence

from redraft.bundled.data.sudoku.puzzles import Puzzle, minimal_puzzle
from redraft.bundled.data.sudoku.tokens import EOS, digit_token, prompt_tokens
from redraft.training.data.examples import Example

NUM_GRIDS = 10_000
"""Minimal puzzles that all examples are made of: given some more cells and disguised, each is as good as new."""
MAX_GIVEN = 72
PARTLY_PINNED = 0.25
"""A share of the examples pins only some of the given cells. What they have to copy from the prompt is the first that
a new model learns, and it shows where a canvas's cell has its place; it also learns to solve without any pins."""


class SudokuExamples:
    """The examples of each step: `batch_size` puzzles of any difficulty, always the same for the same step."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._minimal: dict[int, Puzzle] = {}

    def __call__(self, step: int) -> Sequence[Example]:
        first = step * self._batch_size
        return [self.at(first + i) for i in range(self._batch_size)]

    def at(self, index: int) -> Example:
        """Returns example `index` of the run."""
        rng = random.Random(f"sudoku/training/{index}")
        number = rng.randrange(NUM_GRIDS)
        if number not in self._minimal:
            self._minimal[number] = minimal_puzzle(random.Random(f"sudoku/training grids/{number}"))
        puzzle = self._minimal[number]
        # Harder ones more often.
        spread = rng.random() ** 1.5
        count = round(len(puzzle.given) + spread * (MAX_GIVEN - len(puzzle.given)))
        puzzle = puzzle.with_given(count, rng).disguised(rng)
        share = rng.random() if rng.random() < PARTLY_PINNED else 1.0
        return example(puzzle, frozenset(cell for cell in sorted(puzzle.given) if rng.random() < share))

    def validation(self, count: int) -> list[Example]:
        """Returns puzzles of grids that are not trained on, from minimal ones to half full, wholly pinned."""
        found = []
        for index in range(count):
            rng = random.Random(f"sudoku/validation/{index}")
            puzzle = minimal_puzzle(rng).with_given(24 + index % 17, rng)
            found.append(example(puzzle, puzzle.given))
        return found


def example(puzzle: Puzzle, pinned: frozenset[int]) -> Example:
    """Returns a puzzle as an example of which these cells are pinned."""
    answer = (*map(digit_token, puzzle.solution), EOS)
    return Example(prompt_tokens(puzzle.grid), answer, pinned=pinned)
