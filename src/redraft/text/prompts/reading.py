"""A prompt as a model reads it, and what can be told of an answer to it."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from redraft.text.checks import ANOTHER_SEED, HOLD_IT, check_date, check_end, check_fields, check_keys, check_named
from redraft.text.parts.joining import Emptiness
from redraft.text.prompts.forms import PromptTask
from redraft.text.prompts.rewriting import check_rewritten
from redraft.text.trust.places import Place
from redraft.utils.words import counted_of


@dataclass(frozen=True)
class ReadPrompt:
    """The token ids of a prompt, and what else of it matters for the answer.

    warnings: what of it the model does not read as it was sent, or was not trained on. forms: its own forms of letters,
    which an answer gets by `answer_forms`. task: what it asks for, where that is known. text: that of its last message.
    is_known: whether it is like those that the model was trained on; None where that is not known. refusal: what the
    model answers to prompts of other kinds. parts: the prompts that it is answered by where it asks for an array, one
    for each item, or is about a long text, one for each window; none where it is answered as it is. may_be_none:
    which items may be none, but what the text says around them. offset: of a part, where its text
    begins in the message that it is of. unparted: the same prompt, to be answered as it is. said: the texts of all
    messages, where each key of an answer is to be named; "" where it need not be.
    """

    ids: list[int]
    warnings: tuple[str, ...] = ()
    forms: Mapping[int, str] = field(default_factory=dict)
    task: PromptTask | None = None
    text: str = ""
    is_known: bool | None = None
    refusal: str = ""
    parts: tuple["ReadPrompt", ...] = ()
    may_be_none: Emptiness = "none"
    offset: int = 0
    unparted: "ReadPrompt | None" = None
    said: str = ""

    @property
    def whole(self) -> "ReadPrompt":
        """Returns this prompt, to be answered as it is."""
        return self.unparted or self

    def after(self, warnings: Sequence[str]) -> "ReadPrompt":
        """Returns this prompt with some warnings before its own."""
        whole = None if self.unparted is None else self.unparted.after(warnings)
        return replace(self, warnings=(*warnings, *self.warnings), unparted=whole)

    @property
    def longest_ids(self) -> list[int]:
        """The most token ids that the model reads at a time."""
        return max((part.ids for part in self.parts), key=len, default=self.ids)

    @property
    def num_tokens(self) -> int:
        """The tokens that the model reads of it, those of its parts together."""
        return sum(len(part.ids) for part in self.parts) or len(self.ids)

    def room(self, max_new_tokens: int) -> int:
        """Returns how many tokens its answer may have. Where that is made of parts, the limit is that of each."""
        return sys.maxsize if self.parts else max_new_tokens

    def stretches(self, items: Sequence[int]) -> tuple[Place, ...]:
        """Returns where some of its items stand in its text, each up to the next. items: numbers of its parts."""
        ends = [*(part.offset for part in self.parts[1:]), len(self.text)]
        return tuple((self.parts[at].offset, ends[at]) for at in items)

    def answer_forms(self, *, is_held: bool) -> Mapping[int, str]:
        """Returns the forms that letters of an answer get; none where it is held to a language, which says its own."""
        return {} if is_held else self.forms

    def check(
        self,
        answer: str,
        finish_reason: str,
        *,
        num_tokens: int,
        steps_per_canvas: Sequence[int],
        max_steps: int,
        is_greedy: bool = False,
        is_stopped: bool = False,
        is_held: bool = False,
        unread: int = 0,
    ) -> tuple[str, ...]:
        """Returns what may be wrong with an answer to it, in sentences.

        num_tokens: of the answer. steps_per_canvas: none where it was written without canvases. is_greedy: whether it
        is the same for every seed; is_stopped: whether a text that stops it cut it; is_held: whether it was held to a
        language. unread: of its parts, those whose answers say nothing that it could be made of.
        """
        is_cut = is_stopped or finish_reason == "length"
        found = list(check_end(num_tokens, finish_reason, steps_per_canvas, max_steps))
        if unread:
            of_all = counted_of(unread, len(self.parts), "part", "has", "have")
            found.append(f"{of_all} no answer that can be read: what is null there was not looked up")
        task = self.task
        if self.is_refused(answer):
            found.append(
                "the model says that this is not what it is for; its card has prompts that are (`redraft examples`)"
            )
        elif task is not None and (task.fields or task.names_missing):
            found += check_fields(
                answer,
                task.fields,
                task.text,
                is_known=self.is_known is not False,
                is_array=task.is_array,
                way_out="" if is_cut or is_held else HOLD_IT if is_greedy else ANOTHER_SEED,
            )
        else:
            found += check_keys(answer)
            if task is None and self.said:
                found += check_named(answer, self.said)
            told: list[str] = []
            if task is not None:
                is_free = not (is_held or is_stopped)
                told += check_rewritten(self.text[: task.start], answer, task.text, is_free=is_free)
            # A date in the format asked for was looked up already.
            found += told or check_date(answer)
        return tuple(found)

    def is_refused(self, answer: str) -> bool:
        """Returns whether an answer is the one that the model gives to prompts of other kinds."""
        return bool(self.refusal) and answer.strip() == self.refusal
