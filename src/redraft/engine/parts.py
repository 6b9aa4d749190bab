"""Answers in parts: what the engine holds of a request, be it one sequence or one for each part of its prompt.

Token ids only, no torch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from redraft.engine.events import CanvasCommitted, Event, Failed, Finished

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
    """A request that the engine holds, the sequences that answer it, and the answers to its parts so far."""

    request: "Request"
    sequences: "list[sequence.Sequence]"
    is_admitted: bool = False
    _answers: "dict[int, Generation]" = field(default_factory=dict)

    def take(self, of: "sequence.Sequence", events: "list[Event]") -> "list[Event]":
        """Returns what the events of one sequence mean for the request: of parts nothing, until the last has ended."""
        parts, last = self.request.parts, events[-1] if events else None
        if parts is None:
            return events
        if not isinstance(last, Finished):
            return []
        self._answers[of.part] = last.generation
        if len(self._answers) < len(self.sequences):
            return []
        id = self.request.id
        try:
            whole = parts.join([self._answers[at] for at in range(len(self.sequences))])
        except Exception as error:  # a caller's function: whatever it raises, others are answered
            return [Failed(id, error)]
        # Canvases are counted by their commits; the text comes with the last.
        *before, steps = whole.steps_per_canvas if self.request.mode == "diffusion" else (0,)
        return [
            *(CanvasCommitted(id, (), taken) for taken in before),
            CanvasCommitted(id, whole.token_ids, steps),
            Finished(id, whole),
        ]
