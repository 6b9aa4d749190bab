"""Repetition between neighbouring canvases: what a model that forgets where it stood writes again."""

import itertools
from collections.abc import Sequence

SIZE = 4


def repetition(tokens: Sequence[int], canvas_length: int) -> float | None:
    """Mean share of a canvas's runs of four tokens that the canvas before it has too; None for a single canvas."""
    canvases = [tokens[at : at + canvas_length] for at in range(0, len(tokens), canvas_length)]
    runs = [{tuple(canvas[at : at + SIZE]) for at in range(len(canvas) - SIZE + 1)} for canvas in canvases]
    shares = [len(own & before) / len(own) for before, own in itertools.pairwise(runs) if own]
    return sum(shares) / len(shares) if shares else None
