"""Scores: how close an answer is to the right one. 1 is right; of an error rate, 0."""

import itertools
import json
from collections.abc import Sequence

from redraft.evaluation.cases import Case
from redraft.text.checks import is_in

RUN_LENGTH = 4
Fields = tuple[tuple[str, object], ...]


def score_text(case: Case, text: str) -> dict[str, float]:
    """Scores text. exact: equal but for white space at the ends; character_error_rate: edits per expected character."""
    return {"exact": float(text.strip() == case.answer.strip()), "character_error_rate": _error_rate(case.answer, text)}


def score_repair(case: Case, text: str) -> dict[str, float]:
    """Scores text, and beside it an answer that copies the sentence it was asked to repair."""
    given = case.prompt.split(": ", 1)[-1]
    return score_text(case, text) | {"character_error_rate_of_copying": _error_rate(case.answer, given)}


def score_fields(case: Case, text: str) -> dict[str, float]:
    """Scores a JSON object: exact (fields, order and values), its right fields, their F1, and whether it is one.

    fields_right: share of the expected fields that are present with their value. field_f1: the harmonic mean of recall
    (that share) and precision (the share of the answer's fields that are right), without fields that are null in both.
    Raises ValueError for a case whose right answer is not a JSON object.
    """
    expected = _fields(case.answer)
    if expected is None:
        raise ValueError(f"the right answer of {case.prompt[:60]!r} is not a JSON object: {case.answer[:60]!r}")
    actual = _fields(text)
    values = dict(actual or ())
    hits = [name in values and _is_same(values[name], value) for name, value in expected]
    answered = {(name, json.dumps(value)) for name, value in actual or () if value is not None}
    wanted = {(name, json.dumps(value)) for name, value in expected if value is not None}
    is_valid, size = float(actual is not None), len(answered) + len(wanted)
    return {
        "exact": float(actual is not None and _is_same(actual, expected)),
        "fields_right": sum(hits) / len(hits) if hits else is_valid,
        "field_f1": 2 * len(answered & wanted) / size if size else is_valid,
        "valid_json": is_valid,
    }


def score_extraction(case: Case, text: str) -> dict[str, float]:
    """Scores a JSON object as `score_fields` does, and counts its texts that do not stand in the prompt's text."""
    given = case.prompt.partition(": ")[2]
    values = [value for _, value in _fields(text) or () if isinstance(value, str)]
    return score_fields(case, text) | {"values_not_in_text": sum(not is_in(value, given) for value in values)}


def score_answer(case: Case, text: str) -> dict[str, float]:
    """Scores any answer. exact: the same JSON value, or the same text where it is none.

    fields_right: of an array the share of its objects' fields that are present, in the object of the same place.
    """
    if _fields(case.answer) is not None:
        return score_fields(case, text)
    if not case.answer.startswith("["):
        return {"exact": float(text.strip() == case.answer.strip())}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {"exact": 0.0, "valid_json": 0.0, "fields_right": 0.0}
    expected = json.loads(case.answer)
    objects: list[dict[str, object]] = [one if isinstance(one, dict) else {} for one in _objects(found)]
    objects += [{}] * len(expected)
    hits = [
        name in actual and _is_same(actual[name], value)
        for one, actual in zip(expected, objects, strict=False)
        for name, value in one.items()
    ]
    right = sum(hits) / len(hits) if hits else 0.0
    return {"exact": float(_is_same(found, expected)), "valid_json": 1.0, "fields_right": right}


def repetition(tokens: Sequence[int], canvas_length: int) -> float | None:
    """Returns the mean share of a canvas's runs of four tokens that its predecessor has too; None for one canvas.

    It is what a model writes again when it loses its place.
    """
    canvases = [tokens[at : at + canvas_length] for at in range(0, len(tokens), canvas_length)]
    runs = [{tuple(canvas[at : at + RUN_LENGTH]) for at in range(len(canvas) - RUN_LENGTH + 1)} for canvas in canvases]
    shares = [len(own & before) / len(own) for before, own in itertools.pairwise(runs) if own]
    return sum(shares) / len(shares) if shares else None


def _objects(found: object) -> list[object]:
    return found if isinstance(found, list) else []


def _is_same(one: object, other: object) -> bool:
    # In Python 1, 1.0 and True are equal.
    return json.dumps(one) == json.dumps(other)


def _fields(text: str) -> Fields | None:
    """A JSON object's fields in order, duplicates included; None for any other text."""
    try:
        # Only objects become tuples here.
        found = json.loads(text, object_pairs_hook=tuple)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, tuple) else None


def _error_rate(expected: str, text: str) -> float:
    from rapidfuzz.distance import Levenshtein

    return Levenshtein.distance(expected.strip(), text.strip()) / max(1, len(expected.strip()))
