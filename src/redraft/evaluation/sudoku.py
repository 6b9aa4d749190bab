"""Sudoku: generated puzzles with one solution, in three grades.

A model that denoises can fill any cell first; one that writes from left to right cannot.
"""

import random
from collections.abc import Sequence

from redraft.api import Prompt
from redraft.bundled.data.sudoku.puzzles import CELLS, SIDE, minimal_puzzle
from redraft.diffusion.start import CanvasStart
from redraft.evaluation.cases import Case
from redraft.evaluation.subject import ModelSubject, Response

GRADES = {"easy": 50, "medium": 40, "hard": 30}
"""Given cells."""
PROMPT = "Solve this Sudoku. Write all nine rows, one a line, with a digit for every dot.\n"
PUBLISHED = {
    "26B-A4B, fine-tuned": {"solved": 0.8},
    "SudokuDiT, 1.28 M parameters": {"valid": 0.998, "solved": 0.943, "steps_per_canvas": 3.6},
}
"""What others report of puzzles of their own. Where a puzzle has several solutions, a valid board may be none that was
looked for; the puzzles here have one, so what is valid is solved. Sources: of the first, what was reported of
DiffusionGemma's release, without a page to cite; of the second, https://huggingface.co/tchauffi/sudoku-dit."""


def sudoku_cases(count: int, seed: int = 0) -> list[Case]:
    """Generates `count` puzzles of each grade; the same seed gives the same puzzles."""
    return [
        puzzle(random.Random(f"sudoku/{grade}/{seed}/{index}"), given, grade)
        for grade, given in GRADES.items()
        for index in range(count)
    ]


def puzzle(rng: random.Random, given: int, grade: str) -> Case:
    """Generates a puzzle with so many given cells (a few more where fewer leave several solutions) and one solution."""
    made = minimal_puzzle(rng).with_given(given, rng)
    return Case(PROMPT + _text(made.grid), _text(made.solution), group=grade)


def clues_of(prompt: str) -> str:
    """Returns the 81 cells of a case's prompt: a digit, or a dot where nothing is given."""
    return prompt.removeprefix(PROMPT).replace("\n", "")


class PinnedSudoku(ModelSubject):
    """A model that has the given cells on its canvas, where they are pinned, beside the prompt.

    It writes a board as 81 tokens, a digit each.
    """

    def check(self, prompt: Prompt) -> None:
        """Raises ValueError for a puzzle that cannot be pinned, and what a model's subject raises."""
        self._model.stream(prompt, start=self._start(prompt), **self._settings)

    def respond(self, prompt: Prompt) -> Response:
        result = self._model.generate(prompt, start=self._start(prompt), **self._settings)
        return Response.of_generation(result.text, result.generation)

    def _start(self, prompt: Prompt) -> CanvasStart:
        tokens: list[int | None] = []
        for clue in clues_of(str(prompt)):
            ids = self._model.tokenizer.encode(clue) if clue != "." else [None]
            if len(ids) != 1:
                raise ValueError(f"--pinned: {self._model.name} has no token for {clue!r} alone; leave it out")
            tokens += ids
        return CanvasStart(
            tokens=tuple(tokens), pinned=frozenset(at for at, token in enumerate(tokens) if token is not None)
        )


def score_sudoku(case: Case, text: str) -> dict[str, float]:
    """Scores a grid. exact: the solution; cells_right: share of the empty cells; clues_kept: no given digit changed."""
    clues = clues_of(case.prompt)
    expected = case.answer.replace("\n", "")
    found = "".join(text.split())
    cells = found if len(found) == CELLS else " " * (CELLS)
    empty = [cell for cell, clue in enumerate(clues) if clue == "."]
    return {
        "exact": float(found == expected),
        "cells_right": sum(cells[cell] == expected[cell] for cell in empty) / max(1, len(empty)),
        "clues_kept": float(all(cells[cell] == clue for cell, clue in enumerate(clues) if clue != ".")),
    }


def _text(grid: Sequence[int]) -> str:
    digits = "".join(str(digit) if digit else "." for digit in grid)
    return "\n".join(digits[at : at + SIDE] for at in range(0, CELLS, SIDE))
