"""What every decoding mode decides.

R rows that are read out, D hidden.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from redraft.diffusion.sampler import CanvasState
from redraft.engine.events import Event
from redraft.engine.request import Request
from redraft.engine.sequence import Chunk, Sequence
from redraft.generation.result import AnswerRecord, DenoisingStep
from redraft.model.head import OutputHead


@dataclass(frozen=True)
class WorkItem:
    """What a sequence wants of the forward that it is in.

    encode: tokens that an encoder pass appends to its cache. canvas: what a denoiser pass then reads, and all of whose
    rows are read out. read_last: how many of the last encoded tokens' rows are read out instead.
    """

    chunk: Chunk
    encode: list[int]
    canvas: CanvasState | None = None
    read_last: int = 0

    @property
    def sequence(self) -> Sequence:
        return self.chunk.sequence


@dataclass(frozen=True)
class DecodingOutcome:
    """What a forward made of a sequence whose rows were read out: a denoising step, tokens, or an error."""

    step: DenoisingStep | None = None
    canvas: CanvasState | None = None
    token_ids: tuple[int, ...] = ()
    error: Exception | None = None


class DecodingMode(Protocol):
    """How sequences are decoded, by one model. What a sequence has come to is kept in the sequence alone."""

    def check(self, request: Request) -> None:
        """Raises ValueError for a request that the model cannot answer in this mode."""
        ...

    def canvas_length(self, request: Request) -> int:
        """Returns the rows of a denoiser pass, 0 where the mode has none."""
        ...

    def record(self, request: Request) -> AnswerRecord:
        """Returns the empty answer, with its room, its stop ids and its seed."""
        ...

    @property
    def reads_prompt(self) -> bool:
        """Whether it reads out a row of the prompt, which then cannot come from the cache as a whole."""
        ...

    def work(self, chunk: Chunk) -> WorkItem:
        """Returns what the sequence wants of the next forward, of which `chunk` has room."""
        ...

    def read(self, items: list[WorkItem], head: OutputHead, hidden: Tensor) -> list[DecodingOutcome]:
        """Reads out the rows hidden [R, D] of some sequences of this mode, one behind the other.

        Returns what that means for each of the sequences, and changes none of them.
        """
        ...

    def take(self, sequence: Sequence, outcome: DecodingOutcome) -> Iterator[Event]:
        """Takes the sequence further; yields what happened, a Finished at last when it has ended."""
        ...
