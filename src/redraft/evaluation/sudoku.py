"""Sudoku: generated puzzles with one solution, in three grades.

A model that denoises can fill any cell first; one that writes from left to right cannot.
"""

import random

from redraft.evaluation.cases import Case

GRADES = {"easy": 50, "medium": 40, "hard": 30}
"""Given cells."""
SIDE = 9
PROMPT = "Solve this Sudoku. Write all nine rows, one a line, with a digit for every dot.\n"
Grid = list[int]
"""81 digits, row by row; 0 is empty."""


def sudoku_cases(count: int, seed: int = 0) -> list[Case]:
    """Generates `count` puzzles of each grade; the same seed gives the same puzzles."""
    return [
        puzzle(random.Random(f"sudoku/{grade}/{seed}/{index}"), given, grade)
        for grade, given in GRADES.items()
        for index in range(count)
    ]


def puzzle(rng: random.Random, given: int, grade: str) -> Case:
    """Generates a puzzle with about `given` given cells and exactly one solution."""
    solution = _solved(rng)
    grid = list(solution)
    left = SIDE * SIDE
    for cell in rng.sample(range(SIDE * SIDE), SIDE * SIDE):
        if left == given:
            break
        grid[cell] = 0
        if _count_solutions(grid, 2) == 1:
            left -= 1
        else:
            grid[cell] = solution[cell]
    return Case(PROMPT + _text(grid), _text(solution), group=grade)


def score_sudoku(case: Case, text: str) -> dict[str, float]:
    """Scores a grid. exact: the solution; cells_right: share of the empty cells; clues_kept: no given digit changed."""
    clues = case.prompt.removeprefix(PROMPT).replace("\n", "")
    expected = case.answer.replace("\n", "")
    found = "".join(text.split())
    cells = found if len(found) == SIDE * SIDE else " " * (SIDE * SIDE)
    empty = [cell for cell, clue in enumerate(clues) if clue == "."]
    return {
        "exact": float(found == expected),
        "cells_right": sum(cells[cell] == expected[cell] for cell in empty) / max(1, len(empty)),
        "clues_kept": float(all(cells[cell] == clue for cell, clue in enumerate(clues) if clue != ".")),
    }


def _solved(rng: random.Random) -> Grid:
    """A full grid: a known one with its digits, rows and columns permuted as the rules allow."""

    def shuffled() -> list[int]:
        return [band * 3 + line for band in rng.sample(range(3), 3) for line in rng.sample(range(3), 3)]

    rows, columns, digits = shuffled(), shuffled(), rng.sample(range(1, 10), 9)
    return [digits[(3 * (row % 3) + row // 3 + column) % 9] for row in rows for column in columns]


def _count_solutions(grid: Grid, limit: int) -> int:
    """Counts the solutions, up to `limit`; tries the cell with the fewest choices first."""
    choices = {cell: _choices(grid, cell) for cell in range(SIDE * SIDE) if not grid[cell]}
    if not choices:
        return 1
    cell = min(choices, key=lambda cell: len(choices[cell]))
    found = 0
    for digit in choices[cell]:
        grid[cell] = digit
        found += _count_solutions(grid, limit - found)
        if found == limit:
            break
    grid[cell] = 0
    return found


def _choices(grid: Grid, cell: int) -> list[int]:
    row, column = divmod(cell, SIDE)
    corner = row // 3 * 27 + column // 3 * 3
    seen = {grid[row * SIDE + i] for i in range(SIDE)} | {grid[i * SIDE + column] for i in range(SIDE)}
    seen |= {grid[corner + i // 3 * SIDE + i % 3] for i in range(SIDE)}
    return [digit for digit in range(1, 10) if digit not in seen]


def _text(grid: Grid) -> str:
    digits = "".join(str(digit) if digit else "." for digit in grid)
    return "\n".join(digits[at : at + SIDE] for at in range(0, SIDE * SIDE, SIDE))
