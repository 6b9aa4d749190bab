"""Repetition between neighbouring canvases: what a model writes again when it loses its place."""

import itertools
from collections.abc import Sequence

RUN_LENGTH = 4


def repetition(tokens: Sequence[int], canvas_length: int) -> float | None:
    """Returns the mean share of a canvas's runs of four tokens that its predecessor has too; None for one canvas."""
    canvases = [tokens[at : at + canvas_length] for at in range(0, len(tokens), canvas_length)]
    runs = [{tuple(canvas[at : at + RUN_LENGTH]) for at in range(len(canvas) - RUN_LENGTH + 1)} for canvas in canvases]
    shares = [len(own & before) / len(own) for before, own in itertools.pairwise(runs) if own]
    return sum(shares) / len(shares) if shares else None
