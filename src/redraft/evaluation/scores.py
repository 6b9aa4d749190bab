"""Scores: numbers that say how near an answer is to the right one. 1 is right, but for error rates, where 0 is."""

import json

from redraft.evaluation.cases import Case

Fields = tuple[tuple[str, object], ...]


def score_text(case: Case, text: str) -> dict[str, float]:
    """exact: the same but for white space at the ends; character_error_rate: edits per character of what is right."""
    return {"exact": float(text.strip() == case.answer.strip()), "character_error_rate": _error_rate(case.answer, text)}


def score_repair(case: Case, text: str) -> dict[str, float]:
    """As `score_text`, with the error rate of an answer that copies what it was given to mend."""
    given = case.prompt.split(": ", 1)[-1]
    return score_text(case, text) | {"character_error_rate_of_copying": _error_rate(case.answer, given)}


def score_fields(case: Case, text: str) -> dict[str, float]:
    """Of a JSON object: exact (fields, order and values), its fields that are right, their F1, and whether it is one.

    fields_right: share of the wanted fields that are there with their value. field_f1: the harmonic mean of that and of
    the share of what is there that is right, without fields that are null on both sides.
    """
    right = _fields(case.answer)
    if right is None:
        raise ValueError(f"the right answer of {case.prompt[:60]!r} is no JSON object: {case.answer[:60]!r}")
    found = _fields(text)
    there = dict(found or ())
    hits = [name in there and _same(there[name], value) for name, value in right]
    told = {(name, json.dumps(value)) for name, value in found or () if value is not None}
    true = {(name, json.dumps(value)) for name, value in right if value is not None}
    return {
        "exact": float(found is not None and _same(found, right)),
        "fields_right": sum(hits) / len(hits) if hits else float(found is not None),
        "field_f1": 2 * len(told & true) / (len(told) + len(true)) if told or true else float(found is not None),
        "valid_json": float(found is not None),
    }


def _same(one: object, other: object) -> bool:
    # In Python 1, 1.0 and True are equal.
    return json.dumps(one) == json.dumps(other)


def _fields(text: str) -> Fields | None:
    """The fields of a JSON object in order, a name that comes twice twice; None where the text is none."""
    try:
        # Objects come as tuples here, which nothing else in JSON does.
        found = json.loads(text, object_pairs_hook=tuple)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, tuple) else None


def _error_rate(wanted: str, text: str) -> float:
    from rapidfuzz.distance import Levenshtein

    return Levenshtein.distance(wanted.strip(), text.strip()) / max(1, len(wanted.strip()))
