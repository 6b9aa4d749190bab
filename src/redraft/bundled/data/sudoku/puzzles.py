"""Puzzles with exactly one solution, made from random grids.

A cell is a number from 0 to 80, row by row; a grid is 81 digits, 0 where it is open. While a grid is solved, each cell
has a mask of the digits that it may still hold: bit d - 1 for digit d.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

SIDE = 9
CELLS = SIDE * SIDE
ALL = 2**SIDE - 1
ROW = [cell // 9 for cell in range(CELLS)]
COLUMN = [cell % 9 for cell in range(CELLS)]
BOX = [cell // 27 * 3 + cell % 9 // 3 for cell in range(CELLS)]
UNITS = [[cell for cell in range(CELLS) if kind[cell] == at] for kind in (ROW, COLUMN, BOX) for at in range(SIDE)]
PEERS = [sorted({other for unit in UNITS if cell in unit for other in unit} - {cell}) for cell in range(CELLS)]
Masks = list[int]


@dataclass(frozen=True)
class Puzzle:
    """A grid's 81 digits, and the cells that are given: enough of them that no other grid has the same digits there."""

    solution: tuple[int, ...]
    given: frozenset[int]

    @property
    def grid(self) -> tuple[int, ...]:
        """The puzzle as it is asked: 0 where nothing is given."""
        return tuple(digit if cell in self.given else 0 for cell, digit in enumerate(self.solution))

    def with_given(self, count: int, rng: random.Random) -> "Puzzle":
        """Returns the puzzle with so many given cells; those that are more than it has are drawn from the open ones."""
        more = count - len(self.given)
        return Puzzle(self.solution, self.given | {*rng.sample(sorted({*range(CELLS)} - self.given), max(0, more))})

    def disguised(self, rng: random.Random) -> "Puzzle":
        """Returns it with rows, columns, digits and sides exchanged as the rules allow: it still has one solution."""
        rows, columns = _shuffled_lines(rng), _shuffled_lines(rng)
        digits = [0, *rng.sample(range(1, SIDE + 1), SIDE)]
        source = [row * SIDE + column for row in rows for column in columns]
        if rng.random() < 0.5:
            source = [source[cell % SIDE * SIDE + cell // SIDE] for cell in range(CELLS)]
        solution = tuple(digits[self.solution[cell]] for cell in source)
        return Puzzle(solution, frozenset(at for at, cell in enumerate(source) if cell in self.given))


def minimal_puzzle(rng: random.Random) -> Puzzle:
    """Makes a puzzle from a random grid, of which no given cell can be left out: mostly 22 to 27 are left."""
    (solution,) = _search([ALL] * CELLS, 1, rng)
    given = set(range(CELLS))
    for cell in rng.sample(range(CELLS), CELLS):
        given.remove(cell)
        # With one solution before, another one has another digit here.
        masks = _masks([digit if at in given else 0 for at, digit in enumerate(solution)])
        assert masks is not None
        others = masks[cell] & ~(1 << solution[cell] - 1)
        if any(_is_solvable_with(masks, cell, bit) for bit in _bits(others)):
            given.add(cell)
    return Puzzle(tuple(solution), frozenset(given))


def solve(grid: Sequence[int], limit: int = 2) -> list[list[int]]:
    """Returns the solutions of a grid, `limit` of them at most."""
    masks = _masks(grid)
    return [] if masks is None else _search(masks, limit)


def _masks(grid: Sequence[int]) -> Masks | None:
    """Returns what each cell may hold beside the given digits; None where they contradict each other."""
    masks = [ALL] * CELLS
    for cell, digit in enumerate(grid):
        if digit and not _assign(masks, cell, 1 << digit - 1):
            return None
    return masks


def _is_solvable_with(masks: Masks, cell: int, bit: int) -> bool:
    trial = masks[:]
    return _assign(trial, cell, bit) and bool(_search(trial, 1))


def _search(masks: Masks, limit: int, rng: random.Random | None = None) -> list[list[int]]:
    """Returns the solutions, up to `limit`: tries the cell with the fewest choices, in random order with an `rng`."""
    if not _assign_hidden(masks):
        return []
    open_cells = [cell for cell in range(CELLS) if masks[cell] & masks[cell] - 1]
    if not open_cells:
        return [[mask.bit_length() for mask in masks]]
    cell = min(open_cells, key=lambda cell: masks[cell].bit_count())
    bits = list(_bits(masks[cell]))
    if rng is not None:
        rng.shuffle(bits)
    found: list[list[int]] = []
    for bit in bits:
        trial = masks[:]
        if _assign(trial, cell, bit):
            found += _search(trial, limit - len(found), rng)
        if len(found) >= limit:
            break
    return found


def _assign(masks: Masks, cell: int, bit: int) -> bool:
    """Puts a digit into a cell, and into each cell what is then the only one left; whether nothing contradicts it."""
    pending = [(cell, bit)]
    while pending:
        cell, bit = pending.pop()
        if not masks[cell] & bit:
            return False
        masks[cell] = bit
        for peer in PEERS[cell]:
            if masks[peer] & bit:
                rest = masks[peer] ^ bit
                if not rest:
                    return False
                masks[peer] = rest
                if not rest & rest - 1:
                    pending.append((peer, rest))
    return True


def _assign_hidden(masks: Masks) -> bool:
    """Puts a digit into the only cell of a row, column or box that may hold it; whether nothing contradicts it."""
    changed = True
    while changed:
        changed = False
        for unit in UNITS:
            once = twice = 0
            for cell in unit:
                twice |= once & masks[cell]
                once |= masks[cell]
            if once != ALL:
                return False
            for cell in unit:
                bit = masks[cell] & once & ~twice
                if bit and bit != masks[cell]:
                    # Two digits that fit nowhere else cannot share it.
                    if bit & bit - 1 or not _assign(masks, cell, bit):
                        return False
                    changed = True
    return True


def _bits(mask: int) -> Iterator[int]:
    while mask:
        yield mask & -mask
        mask &= mask - 1


def _shuffled_lines(rng: random.Random) -> list[int]:
    """Returns the numbers of nine rows or columns in another order: bands change places, and lines within each."""
    return [band * 3 + line for band in rng.sample(range(3), 3) for line in rng.sample(range(3), 3)]
