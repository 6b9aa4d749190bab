"""Answers in parts: one prompt that is answered by several, one for each item or window of its text.

Which prompts these are is the model's card's to say; what the whole is made of, `text/parts/joining.py`'s.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from redraft.answers import writing_of
from redraft.diffusion.settings import SamplerSettings
from redraft.engine.parts import Parts
from redraft.generation.result import ConstraintReport, Generation, Verification
from redraft.text import ReadPrompt, TextTokenizer
from redraft.text.parts.items import split_items
from redraft.text.parts.joining import Emptiness, Joined, Unread, join_items, join_windows
from redraft.text.parts.windows import split_windows
from redraft.text.prompts.forms import PromptTask, fits_form, has_words
from redraft.text.trust.calibration import Calibration
from redraft.text.trust.evidence import Trust, assess
from redraft.weights.card import Card

if TYPE_CHECKING:
    from redraft.api import Model

Prompts = tuple[ReadPrompt, ...]
MAX_PARTS = 128
OVERLAP = 1 / 3
"""Of a window's words, what it has in common with the next."""
UNSURE = 100.0
"""The entropy, in nats, of what cannot be told from the tokens that it was written with."""


@dataclass(frozen=True)
class PromptTexts:
    """The texts that a prompt asks about one by one; none where it is answered as it is.

    starts: where each begins in the prompt's own. may_be_none: as a ReadPrompt has it. untold: what is not read.
    """

    texts: tuple[str, ...] = ()
    starts: tuple[int, ...] = ()
    may_be_none: Emptiness = "none"
    untold: tuple[str, ...] = ()


def texts_of(card: Card, task: PromptTask | None) -> PromptTexts:
    """Returns the texts that a prompt asks about one by one, by a model's card. task: what it asks for."""
    if not card.object_form or task is None or not task.fields or not fits_form(task.fields):
        return PromptTexts()
    if task.has_numbers or not has_words(task.text):
        return PromptTexts()
    may_be_none: Emptiness = "none"
    kind = "windows"
    if task.is_array:
        items, kind = split_items(task.text, task.fields), "items"
        own, texts = items.texts, items.shown()
        may_be_none = "any" if items.are_statements else "none" if items.are_certain else "ends"
    elif card.window_words is not None and len(task.text.split()) > card.window_words:
        own = texts = split_windows(task.text, card.window_words, int(card.window_words * OVERLAP))
    else:
        return PromptTexts()
    untold: tuple[str, ...] = ()
    if len(texts) > MAX_PARTS:
        untold = (
            f"the text has {len(texts)} {kind}, of which the first {MAX_PARTS} are read: give the others by themselves",
        )
    return PromptTexts(texts[:MAX_PARTS], tuple(_starts(own[:MAX_PARTS], task.text)), may_be_none, untold)


def _starts(texts: Sequence[str], whole: str) -> Iterator[int]:
    """Yields where texts stand in the whole, one after the other. Of each its first line is enough."""
    at = -1
    for text in texts:
        found = whole.find(text.partition("\n")[0], at + 1)
        at = max(at, 0) if found < 0 else found
        yield at


def parts_of(card: Card, task: PromptTask, found: PromptTexts, encode: Callable[[str], list[int]]) -> Prompts:
    """Returns the prompts that one is answered by. found: what `texts_of` says; encode: gives a prompt's token ids."""
    starts = (task.start + start for start in found.starts)
    parts = [_part(card, task.fields, text, start, encode) for text, start in zip(found.texts, starts, strict=True)]
    if parts and not task.is_array and found.texts != (task.text,):
        # What no window has whole may show in the text itself, where that is no longer than those of training.
        whole = _part(card, task.fields, task.text, task.start, encode)
        parts += [whole] if len(whole.ids) <= (card.max_prompt_tokens or 0) else []
    return tuple(parts)


def _part(card: Card, fields: Sequence[str], text: str, offset: int, encode: Callable[[str], list[int]]) -> ReadPrompt:
    asked = card.form_of_objects.fill(fields, text)
    task = PromptTask(tuple(fields), text, start=asked.rindex(text))
    return ReadPrompt(encode(asked), task=task, text=asked, is_known=True, offset=offset)


def engine_parts(model: "Model", prompt: ReadPrompt, settings: SamplerSettings, mode: str) -> Parts | None:
    """Returns what an engine makes the answer of in parts; None where the prompt is answered as it is."""
    if not prompt.parts:
        return None
    join = functools.partial(
        join_answers, prompt, tokenizer=model.tokenizer, calibration=model.calibration, settings=settings, mode=mode
    )
    return Parts(tuple(tuple(part.ids) for part in prompt.parts), join)


def join_answers(
    prompt: ReadPrompt,
    answers: Sequence[Generation],
    *,
    tokenizer: TextTokenizer,
    calibration: Calibration | None,
    settings: SamplerSettings,
    mode: str,
) -> Generation:
    """Returns the one answer to a prompt, from the answers to its parts."""
    written = [_Written.of(answer, tokenizer) for answer in answers]
    texts = [one.text for one in written]
    assert prompt.task is not None
    if prompt.task.is_array:
        joined = join_items(prompt.task.fields, texts, may_be_none=prompt.may_be_none)
    else:
        trusts = (
            assess(part, text, writing_of(mode, answer, settings), tokenizer, calibration=calibration)
            for part, text, answer in zip(prompt.parts, texts, answers, strict=True)
        )
        joined = join_windows(prompt.task.fields, texts, [_sureness(trust) for trust in trusts])
    return _whole(joined, written, answers, tokenizer)


def _sureness(trust: Trust) -> dict[str, float]:
    """Returns how sure each field's value is: by the calibration, else by its tokens' entropies."""
    found = {}
    for one in trust.values:
        if len(one.path) == 1 and one.max_entropy is not None:
            found[str(one.path[0])] = 1 / (1 + one.max_entropy) if one.probability is None else one.probability
    return found


@dataclass(frozen=True)
class _Written:
    """The text of an answer, and of each of its characters how sure the token was that wrote it."""

    text: str
    entropies: tuple[float, ...]
    log_probs: tuple[float | None, ...]

    @classmethod
    def of(cls, answer: Generation, tokenizer: TextTokenizer) -> "_Written":
        """Of characters that several tokens write, and of broken ones, the least sure counts."""
        pieces = [tokenizer.token_bytes(token) for token in answer.token_ids]
        text = b"".join(pieces).decode(errors="replace")
        owners = [at for at, piece in enumerate(pieces) for _ in piece]
        entropies, log_probs = [UNSURE] * len(text), [None] * len(text)
        if len(answer.entropies) >= len(pieces) and len(text.encode()) == len(owners):
            ends = itertools.accumulate(len(char.encode()) for char in text)
            of_chars = [owners[end - len(char.encode()) : end] for char, end in zip(text, ends, strict=True)]
            entropies = [max(answer.entropies[at] for at in of_char) for of_char in of_chars]
            scores = answer.log_probs or (None,) * len(pieces)
            log_probs = [_least(scores[at] for at in of_char) for of_char in of_chars]  # type: ignore[misc]
        return cls(text, tuple(entropies), tuple(log_probs))


def _whole(
    joined: Joined, written: Sequence[_Written], answers: Sequence[Generation], tokenizer: TextTokenizer
) -> Generation:
    """Returns the answer that some pieces make, with what is known of the tokens that wrote them.

    What is written anew is certain.
    """
    text, entropies, log_probs = "", list[float](), list[float | None]()
    for piece in joined.pieces:
        if isinstance(piece, str):
            text += piece
            entropies += [0.0] * len(piece)
            log_probs += [0.0] * len(piece)
        elif isinstance(piece, Unread):
            text += piece.text
            entropies += [UNSURE] * len(piece.text)
            log_probs += [-UNSURE] * len(piece.text)
        else:
            of, at = written[piece.part], slice(piece.start, piece.end)
            text += of.text[at]
            entropies += of.entropies[at]
            log_probs += of.log_probs[at]
    token_ids = tokenizer.encode(text)
    ends = list(itertools.accumulate(len(tokenizer.token_bytes(token)) for token in token_ids))
    owners = [at for at, char in enumerate(text) for _ in char.encode()]
    covered = [
        owners[end - len(tokenizer.token_bytes(token)) : end] for token, end in zip(token_ids, ends, strict=True)
    ]
    if not ends or ends[-1] != len(owners):
        # A tokenizer that changes texts: its tokens are not those of these characters.
        covered = [owners] * len(token_ids)
    end_entropy = max((one.entropies[-1] for one in answers if one.entropies), default=0.0)
    end_log_prob = _least(one.log_probs[-1] if one.log_probs else None for one in answers)
    is_scored = all(one.log_probs for one in answers)
    passes = sum((len(one.token_ids) + 1) / one.tokens_per_forward for one in answers if one.tokens_per_forward)
    has_end = all(one.finish_reason == "stop" for one in answers)
    return replace(
        answers[0],
        token_ids=tuple(token_ids),
        finish_reason="stop" if has_end else "length",
        steps_per_canvas=tuple(steps for one in answers for steps in one.steps_per_canvas),
        tokens_per_forward=(len(token_ids) + 1) / passes if passes else 0.0,
        prefill_seconds=sum(one.prefill_seconds for one in answers),
        denoising_seconds=sum(one.denoising_seconds for one in answers),
        commit_seconds=sum(one.commit_seconds for one in answers),
        canvases=tuple(canvas for one in answers for canvas in one.canvases),
        constraint=_reports([one.constraint for one in answers if one.constraint is not None]),
        verification=_verifications([one.verification for one in answers if one.verification is not None]),
        entropies=(*(max((entropies[at] for at in of), default=0.0) for of in covered), end_entropy),
        log_probs=(*(_least(log_probs[at] for at in of) for of in covered), end_log_prob) if is_scored else (),
        parts=len(answers),
        items=joined.items,
        unread=joined.unread,
    )


def _least(log_probs: Iterable[float | None]) -> float | None:
    """Returns the least of some log-probabilities; None, which is not known, where one of them is not."""
    found = list(log_probs)
    return None if None in found else min(found, default=0.0)  # type: ignore[type-var]


def _reports(found: Sequence[ConstraintReport]) -> ConstraintReport | None:
    if not found:
        return None
    masses = tuple(mass for one in found for mass in one.log_mass)
    return ConstraintReport(masses, sum(one.guided_steps for one in found), found[0].states)


def _verifications(found: Sequence[Verification]) -> Verification | None:
    if not found:
        return None
    rounds = sum(one.rounds for one in found)
    kept = sum(one.kept_per_round * one.rounds for one in found) / rounds if rounds else 0.0
    drafted, passes = sum(one.drafted_rounds for one in found), sum(one.denoiser_passes for one in found)
    return Verification(rounds, drafted, passes, kept)
