"""What speaks for an answer and what against it: how sure the model was, and what of it stands in the text.

The reasons, in words, are the answer's warnings; the calibrated number is made of the same.
"""

import itertools
import json
import math
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from redraft.text.prompts.reading import ReadPrompt
from redraft.text.tokenizer import TextTokenizer
from redraft.text.trust.calibration import Calibration
from redraft.text.trust.places import Leaf, Place, find_whole, leaves

MAX_COUNTED = 3
"""Values that are not found beyond so many make an answer no worse."""
DIGITS = 4
"""Digits of the numbers in JSON, behind the point."""


@dataclass(frozen=True, kw_only=True)
class ValueTrust:
    """What is known of one value of a JSON answer.

    path: the keys and indices that lead to it. places: where it stands in the prompt's last message, in characters;
    none for a value that does not stand there, or only within a longer word; None for null, true and false.
    mean_entropy, max_entropy: of its tokens, in nats; log_prob, min_log_prob: their sum and the least, as the causal
    reading has them. probability: that it is right. None where it is not known.
    """

    path: tuple[str | int, ...]
    places: tuple[Place, ...] | None
    mean_entropy: float | None = None
    max_entropy: float | None = None
    log_prob: float | None = None
    min_log_prob: float | None = None
    probability: float | None = None


@dataclass(frozen=True, kw_only=True)
class Trust:
    """What is known about an answer without knowing the truth; the reasons in words are its warnings.

    probability: that all of it is right, where the checkpoint is calibrated on cases like this with known answers; 0 of
    one that is cut or not valid.
    settled: whether each canvas came to rest before its steps ran out. mean_entropy, max_entropy: of its tokens
    when they became final, in nats; log_prob, min_log_prob: their sum and the least as the causal reading has them.
    valid: whether it is JSON with the keys that were asked for, or keeps to its constraint. known_prompt: whether
    the prompt has a form and a length that the model was trained on. values: of a JSON answer. None where it is not
    known.
    """

    probability: float | None = None
    settled: bool | None = None
    mean_entropy: float | None = None
    max_entropy: float | None = None
    log_prob: float | None = None
    min_log_prob: float | None = None
    valid: bool | None = None
    known_prompt: bool | None = None
    values: tuple[ValueTrust, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Returns it with numbers of few digits, and without what is not known of a value."""
        told = {name: _rounded(value) for name, value in vars(self).items()}
        values = [
            {name: _rounded(found) for name, found in asdict(one).items() if found is not None} for one in self.values
        ]
        return told | {"values": values}


@dataclass(frozen=True, kw_only=True)
class Writing:
    """How an answer was written.

    mode: as requests have it. entropies, log_probs: of each of its tokens and the EOS, as a Generation has them; none
    where they are not known. steps_per_canvas: none where it was written without canvases. items: of an array that was
    made item by item, the part of the prompt that each object is from.
    """

    mode: str
    finish_reason: str
    token_ids: Sequence[int] = ()
    entropies: Sequence[float] = ()
    log_probs: Sequence[float | None] = ()
    steps_per_canvas: Sequence[int] = ()
    max_steps: int = 0
    items: Sequence[int] = ()


def assess(
    prompt: ReadPrompt,
    answer: str,
    writing: Writing,
    tokenizer: TextTokenizer,
    *,
    calibration: Calibration | None = None,
    is_held: bool = False,
) -> Trust:
    """Returns the trust in an answer to a prompt. is_held: whether it was held to a constraint."""
    found = leaves(answer)
    tokens, stretches = _tokens_of(found, writing, tokenizer), prompt.stretches(writing.items)
    values = tuple(
        ValueTrust(path=leaf.path, places=_places(leaf, answer, prompt, stretches), **_sureness(writing, at))
        for leaf, at in zip(found, tokens, strict=True)
    )
    trust = Trust(
        settled=max(writing.steps_per_canvas) < writing.max_steps if writing.steps_per_canvas else None,
        valid=writing.finish_reason == "stop" if is_held else _is_valid(answer, prompt),
        known_prompt=prompt.is_known,
        values=values,
        **_sureness(writing, slice(None)),
    )
    models = None if calibration is None else calibration.of_mode(writing.mode)
    if models is None or trust.max_entropy is None:
        return trust
    if trust.known_prompt is False and not models.answers.weights["unknown_prompt"]:
        # No case that it was fitted on was like this one.
        return trust
    lost = lost_values(trust)
    # What is cut or malformed is not right as a whole, however sure each of its tokens is.
    is_whole = writing.finish_reason != "length" and trust.valid is not False
    return replace(
        trust,
        probability=models.answers.probability(answer_facts(trust, writing, len(prompt.ids))) if is_whole else 0.0,
        values=tuple(
            one
            if one.max_entropy is None
            else replace(one, probability=models.values.probability(value_facts(one, is_lost=one.path in lost)))
            for one in values
        ),
    )


def answer_facts(trust: Trust, writing: Writing, prompt_tokens: int) -> dict[str, float]:
    """Returns what the probability of an answer is computed from, by the names of calibration.ANSWER_FACTS."""
    return {
        **_sureness_facts(trust),
        "tokens": math.log(1 + len(writing.entropies)),
        "prompt_tokens": math.log(1 + prompt_tokens),
        "unsettled": float(trust.settled is False),
        "cut": float(writing.finish_reason == "length"),
        "invalid": float(trust.valid is False),
        "not_found": float(min(len(lost_values(trust)), MAX_COUNTED)),
        "unknown_prompt": float(trust.known_prompt is False),
    }


def value_facts(value: ValueTrust, *, is_lost: bool) -> dict[str, float]:
    """Returns what the probability of a value is computed from, by the names of calibration.VALUE_FACTS.

    is_lost: whether it is one of `lost_values`.
    """
    return {
        **_sureness_facts(value),
        "not_found": float(is_lost),
        "no_place": float(value.places is None),
    }


def lost_values(trust: Trust) -> set[tuple[str | int, ...]]:
    """Returns the paths of the values that have no place in the text, or one that other fields' values have too."""
    found = {(one.path, one.places) for one in trust.values if one.places is not None}
    owners = Counter((path[:-1], places) for path, places in found)
    return {path for path, places in found if owners[path[:-1], places] > len(places)}


def _sureness_facts(of: Trust | ValueTrust) -> dict[str, float]:
    """Entropies and surprises as logarithms: what tells right from wrong is their order of magnitude."""
    return {
        "max_entropy": math.log((of.max_entropy or 0.0) + 1e-4),
        "mean_entropy": math.log((of.mean_entropy or 0.0) + 1e-5),
        "surprise": math.log(max(0.0, -(of.log_prob or 0.0)) + 1e-4),
        "max_surprise": math.log(max(0.0, -(of.min_log_prob or 0.0)) + 1e-4),
    }


def _sureness(writing: Writing, at: slice | None) -> dict[str, Any]:
    """Returns the means and extremes of what is known of some tokens."""
    entropies = [] if at is None else writing.entropies[at]
    log_probs = [] if at is None else [one for one in writing.log_probs[at] if one is not None]
    return {
        "mean_entropy": sum(entropies) / len(entropies) if entropies else None,
        "max_entropy": max(entropies, default=None),
        "log_prob": sum(log_probs) if log_probs else None,
        "min_log_prob": min(log_probs, default=None),
    }


def _tokens_of(found: Sequence[Leaf], writing: Writing, tokenizer: TextTokenizer) -> list[slice | None]:
    """Returns which tokens each value was written with; None where that is not known."""
    nowhere: list[slice | None] = [None] * len(found)
    if not found or not writing.entropies:
        return nowhere
    # Letters may have forms of another length in the prompt, and so in the answer: those that were written count here.
    parts = [tokenizer.token_bytes(token) for token in writing.token_ids]
    text = b"".join(parts).decode(errors="replace")
    written = leaves(text)
    if [one.path for one in written] != [one.path for one in found]:
        return nowhere
    ends = list(itertools.accumulate(map(len, parts)))
    return [
        slice(bisect_right(ends, _bytes_before(text, one.start)), bisect_left(ends, _bytes_before(text, one.end)) + 1)
        for one in written
    ]


def _bytes_before(text: str, end: int) -> int:
    return end if text.isascii() else len(text[:end].encode())


def _places(leaf: Leaf, answer: str, prompt: ReadPrompt, stretches: Sequence[Place]) -> tuple[Place, ...] | None:
    """Returns where a value stands in the text; of an array's object, in the stretch of its item."""
    if leaf.value is None or isinstance(leaf.value, bool):
        return None
    start, text = 0 if prompt.task is None else prompt.task.start, prompt.text
    if stretches and isinstance(leaf.path[0], int) and leaf.path[0] < len(stretches):
        start, end = stretches[leaf.path[0]]
        text = text[:end]
    if isinstance(leaf.value, str):
        return find_whole(leaf.value, text, start)
    places = find_whole(answer[leaf.start : leaf.end], text, start)
    # The 1 of 1,980.00 is not the number 1.
    return tuple(place for place in places if not _is_part_of_number(place, prompt.text))


def _is_part_of_number(place: Place, text: str) -> bool:
    start, end = place
    return bool(
        re.fullmatch(r"\d[.,]", text[max(0, start - 2) : start]) or re.fullmatch(r"[.,]\d", text[end : end + 2])
    )


def _is_valid(answer: str, prompt: ReadPrompt) -> bool | None:
    """Tells whether an answer is JSON with the keys that the prompt asks for; None where it need not be any.

    No key may occur twice, unless it is asked for twice.
    """
    if prompt.is_refused(answer):
        return None
    fields = () if prompt.task is None else prompt.task.fields
    if not fields and not answer.lstrip().startswith(("{", "[")):
        return None
    try:
        value = json.loads(answer, object_pairs_hook=_keys if fields else _distinct_keys)
    except (ValueError, RecursionError):
        return False
    if prompt.task is not None and fields and isinstance(value, list) is not prompt.task.is_array:
        return False
    asked, objects = Counter(fields), value if isinstance(value, list) else [value]
    return not fields or all(
        isinstance(one, Counter) and one.keys() == asked.keys() and one <= asked for one in objects
    )


def _keys(pairs: list[tuple[str, object]]) -> Counter[str]:
    return Counter(key for key, _ in pairs)


def _distinct_keys(pairs: list[tuple[str, object]]) -> Counter[str]:
    if len(found := _keys(pairs)) < len(pairs):
        raise ValueError("a key occurs more than once")
    return found


def _rounded(value: Any) -> Any:
    return round(value, DIGITS) if isinstance(value, float) else value
