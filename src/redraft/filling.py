"""Texts with blanks, and stretches of a text that are written anew: what is fixed stays as it is, byte for byte.

left, as far as a canvas has no room for it ──▶ encoder     left pinned │ blank │ rest by the automaton ──▶ canvas
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redraft.answers import Result
from redraft.constraints.build import ConstraintSpec
from redraft.constraints.language.blanks import BLANK, read_blanks, split_blanks
from redraft.constraints.limits import LimitExceeded
from redraft.constraints.vocabulary import Vocabulary
from redraft.diffusion.start import CanvasStart
from redraft.text import TextTokenizer

if TYPE_CHECKING:
    from redraft.api import Model, Prompt

BLANK_LIMIT = 40
"""Characters that a blank has at most, unless it is said otherwise."""
INSTRUCTION = "Fill in the blank (___): "
"""What a model is asked where a text with blanks is all that is known."""
MAX_LEFT = 1 / 2
"""The part of a canvas that the text in front of the first blank takes at most; more of it goes to the encoder."""
MAX_BESIDE = 1 / 4
"""The part of a canvas that stands on either side of a span that is written anew."""
MAX_SHOWN = 1 / 8
"""Characters on either side of a span that the model is shown, for each token of its context."""


@dataclass(frozen=True)
class FilledText:
    """A text whose blanks were written. values: what stands in each of them; result: how they came about."""

    text: str
    values: tuple[str, ...]
    result: Result

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class FillPlan:
    """How the blanks between some parts are written.

    encoded: tokens of the text that are read behind the prompt. parts: what is left of the text, to which the answer
    is held; start: what its canvas begins as. limit, has_lines: of each blank.
    """

    encoded: tuple[int, ...]
    parts: tuple[str, ...]
    start: CanvasStart
    limit: int | None = None
    has_lines: bool = False


def fill_blanks(
    model: "Model", text: str, settings: Mapping[str, Any], *, prompt: "Prompt | None", blank: str, limit: int | None
) -> FilledText:
    """Does what `Model.fill` says."""
    parts = split_blanks(text, blank)
    _check_limit(limit)
    plan = _plan_blanks(model, parts, settings, limit=limit)
    return _run(model, plan, INSTRUCTION + text if prompt is None else prompt, settings, parts)


def rewrite_span(
    model: "Model",
    text: str,
    start: int,
    end: int,
    settings: Mapping[str, Any],
    *,
    instruction: str | None = None,
    limit: int | None = None,
    strength: float | None = None,
) -> FilledText:
    """Does what `Model.edit` says."""
    for name, value in (("text", text), ("instruction", "" if instruction is None else instruction)):
        if not isinstance(value, str):
            raise ValueError(f"the {name} is {value!r:.80}, must be text")
    if not (_is_integer(start) and _is_integer(end) and 0 <= start <= end <= len(text)):
        raise ValueError(f"the span is {start!r}:{end!r}, must lie within the text's {len(text):,} characters")
    if strength is not None and (isinstance(strength, bool) or not isinstance(strength, int | float)):
        raise ValueError(f"strength is {strength!r:.80}, must be a number above 0 and at most 1")
    _check_limit(limit)
    old, reach = text[start:end], int(model.transformer.config.max_context * MAX_SHOWN)
    left, right = text[max(0, start - reach) : start], text[end : end + reach]
    prompt = INSTRUCTION + left + BLANK + right if instruction is None else f"{instruction}: {left}{old}{right}"
    right = head(right, int(_length(model, settings) * MAX_BESIDE), model.tokenizer, model.vocabulary)
    if strength is None:
        limit = max(BLANK_LIMIT, 2 * len(old)) if limit is None else limit
        plan = _plan_blanks(model, (left, right), settings, limit=limit, has_lines="\n" in old)
    else:
        plan = _plan_from(model, left, old, right, settings, strength=strength)
    return _run(model, plan, prompt, settings, (text[:start], text[end:]))


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_limit(limit: object) -> None:
    if limit is not None and not (_is_integer(limit) and limit >= 1):  # type: ignore[operator]
        raise ValueError(f"limit is {limit!r:.80}, must be an integer of at least 1, or None for no limit")


def head(text: str, room: int, tokenizer: TextTokenizer, vocabulary: Vocabulary) -> str:
    """Returns the beginning of a text that at most `room` tokens write."""
    # No token is worth looking at behind so many characters.
    tokens = tokenizer.encode(text[: room * tokenizer.longest_token])[:room] if text else []
    whole = text.encode()
    while tokens and not (whole.startswith(written := vocabulary.text_of(tokens)) and _is_whole(whole[len(written) :])):
        del tokens[-1]
    return vocabulary.text_of(tokens).decode()


def _length(model: "Model", settings: Mapping[str, Any]) -> int:
    return settings.get("canvas_length") or model.defaults.canvas_length or model.transformer.config.canvas_length


def _plan_blanks(
    model: "Model", parts: Sequence[str], settings: Mapping[str, Any], *, limit: int | None, has_lines: bool = False
) -> FillPlan:
    """Plans how the blanks between `parts` are written.

    The text in front of the first blank is pinned, but for its last token: one that goes on into the blank may stand in
    its place.
    """
    encoded, left = _divide(model, parts[0], int(_length(model, settings) * MAX_LEFT))
    pinned = model.tokenizer.encode(left)[:-1] if left else []
    # The tokenizer may write another form of the text, which the constraint does not allow.
    while not left.encode().startswith(model.vocabulary.text_of(pinned)):
        del pinned[-1]
    return FillPlan(encoded, (left, *parts[1:]), CanvasStart.holding(pinned), limit, has_lines)


def _plan_from(
    model: "Model", left: str, old: str, right: str, settings: Mapping[str, Any], *, strength: float
) -> FillPlan:
    """Plans how `old`, between two texts that are pinned, is written anew from itself with a share of noise.

    It keeps its number of tokens. Raises ValueError where all does not fit a canvas.
    """
    length = _length(model, settings)
    encoded, left = _divide(model, left, int(length * MAX_BESIDE))
    before, span, after = (model.tokenizer.encode(text) if text else [] for text in (left, old, right))
    tokens = [*before, *span, *after]
    if len(tokens) > length:
        raise ValueError(
            f"the span has {len(span)} tokens, beside what surrounds it the canvas has room for "
            f"{length - len(before) - len(after)}: take a shorter span, a longer canvas_length, or no strength"
        )
    if model.vocabulary.text_of(tokens) != f"{left}{old}{right}".encode():
        raise ValueError("the tokens of this model write the text in another form: take no strength")
    open_positions = range(len(before), len(before) + len(span))
    pinned = frozenset(range(len(tokens))) - frozenset(open_positions)
    start = CanvasStart(tokens=tuple(tokens), pinned=pinned, strength=strength)
    return FillPlan(encoded, (left, right), start, has_lines=True)


def _run(
    model: "Model", plan: FillPlan, prompt: "Prompt", settings: Mapping[str, Any], parts: Sequence[str]
) -> FilledText:
    """Writes what is planned. parts: those between which the values stand in the end."""
    read = model.read(prompt)
    if plan.encoded:
        # What is told of an answer is told of a whole one.
        read = dataclasses.replace(read, ids=[*read.ids, *plan.encoded], task=None)
    spec = ConstraintSpec(kind="filled", choices=plan.parts, limit=plan.limit, has_lines=plan.has_lines)
    try:
        result = model.answer(read, spec, start=plan.start, **settings)
    except LimitExceeded as error:
        reason = str(error).partition(":")[0]
        raise ValueError(f"the limit of {plan.limit} characters is too large ({reason}): take a lower one") from None
    values = read_blanks(plan.parts, model.vocabulary.text_of(result.token_ids).decode())
    return FilledText("".join(map("".join, zip(parts, (*values, ""), strict=True))), values, result)


def _divide(model: "Model", text: str, room: int) -> tuple[tuple[int, ...], str]:
    """Returns the tokens in front of the last `room` of a text, and what stands behind them."""
    tokens, vocabulary = model.tokenizer.encode(text) if text else [], model.vocabulary
    count = len(tokens) - room
    # Of an answer that goes on such a vocabulary would lose a space.
    if count <= 0 or vocabulary.strips_first_space:
        return (), text
    written, whole = vocabulary.text_of(tokens[:count]), text.encode()
    while count and not (whole.startswith(written) and _is_whole(whole[len(written) :])):
        count -= 1
        written = vocabulary.text_of(tokens[:count])
    return tuple(tokens[:count]), whole[len(written) :].decode()


def _is_whole(text: bytes) -> bool:
    """Tells whether a text begins with a whole character."""
    return not text or text[0] & 0xC0 != 0x80
