"""Answers in parts: what the engine holds of a request, be it one sequence or one for each part of its prompt.

Token ids only, no torch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from redraft.engine.events import CanvasCommitted, Event, Failed, Finished, StepTaken

if TYPE_CHECKING:
    from redraft.engine import sequence
    from redraft.engine.request import Request
    from redraft.generation.result import Generation


@dataclass(frozen=True)
class Parts:
    """The prompts that an answer is made from, and what makes it of their answers, in the same order."""

    prompts: tuple[tuple[int, ...], ...]
    join: "Callable[[Sequence[Generation]], Generation]"


@dataclass(eq=False)
class HeldRequest:
    """A request that the engine holds, the sequences that answer it, and the answers to its parts so far.

    Parts are answered at the same time, but one after the other where their drafts are wanted: somebody looks on.
    """

    request: "Request"
    sequences: "list[sequence.Sequence]"
    is_admitted: bool = False
    _answers: "dict[int, Generation]" = field(default_factory=dict)

    @property
    def first(self) -> "list[sequence.Sequence]":
        """The sequences that are taken up with the request."""
        return self.sequences[:1] if self.request.drafts else self.sequences

    def take(self, of: "sequence.Sequence", events: "list[Event]") -> "list[Event]":
        """Returns what the events of one sequence mean for the request.

        Of a part these are its drafts, on canvases that are counted through; all else is told when the last has ended.
        """
        parts, last = self.request.parts, events[-1] if events else None
        if parts is None:
            return events
        before = sum(len(answer.canvases) for answer in self._answers.values())
        told: list[Event] = [
            StepTaken(event.id, replace(event.step, canvas=before + event.step.canvas))
            for event in events
            if isinstance(event, StepTaken)
        ]
        if not isinstance(last, Finished):
            return told
        self._answers[of.part] = last.generation
        if len(self._answers) < len(self.sequences):
            return told
        id = self.request.id
        try:
            whole = parts.join([self._answers[at] for at in range(len(self.sequences))])
        except Exception as error:  # a caller's function: whatever it raises, others are answered
            return [*told, Failed(id, error)]
        return [*told, CanvasCommitted(id, whole.token_ids, steps=0), Finished(id, whole)]

    def next_of(self, of: "sequence.Sequence") -> "list[sequence.Sequence]":
        """Returns the sequence that is taken up where another has ended, if one is."""
        return self.sequences[of.part + 1 : of.part + 2] if self.request.drafts else []
