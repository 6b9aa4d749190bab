"""The state of one request in the engine, from its submission to its end, and what its decoding mode decides.

R rows that are read out, D hidden. Imports no torch.
"""

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from redraft.diffusion.sampler import CanvasState
    from redraft.engine.events import Event
    from redraft.engine.request import Request
    from redraft.generation.constrained import ConstrainedCanvas
    from redraft.generation.result import AnswerRecord, DenoisingStep
    from redraft.model.cache import KVCache
    from redraft.model.head import OutputHead
    from redraft.model.linear.low_rank import AdapterMatrices
    from redraft.model.readout.query import TopTokens


class Phase(enum.Enum):
    """What the tokens that a sequence has yet to encode are: its prompt, or what it has written."""

    PREFILL = "prefill"
    COMMIT = "commit"


@dataclass(eq=False, kw_only=True)
class Sequence:
    """A request, or a part of one, and how far it has come.

    Written once: request, part (which it is of its request's), mode, canvas_length (rows of a denoiser pass over it; 0:
    it has none), max_tokens (what its cache may come to hold), adapter (the one that its request names). By the mode:
    canvas (the one under way), held (the constraint that it is under), canvas_rows (those that the next forward is to
    denoise: all or none), pending (tokens yet to be encoded), phase, record (the answer so far). By the engine core:
    cache, phase and pending after a forward, branch (where in the pending tokens a chunk has to end, because a prefix
    that others share ends there). By the scheduler: last_served, the last forward that served it.
    """

    request: "Request"
    mode: "DecodingMode"
    record: "AnswerRecord"
    cache: "KVCache"
    canvas_length: int
    max_tokens: int
    is_background: bool = False
    adapter: "AdapterMatrices | None" = None
    part: int = 0
    phase: Phase = Phase.PREFILL
    pending: list[int] = field(default_factory=list)
    canvas: "CanvasState | None" = None
    held: "ConstrainedCanvas | None" = None
    canvas_rows: int = -1
    branch: int | None = None
    last_served: int = -1

    def __post_init__(self) -> None:
        if self.canvas_rows < 0:
            self.canvas_rows = self.canvas_length

    @property
    def committed(self) -> list[int]:
        """The tokens whose keys and values the cache holds."""
        written = [token for canvas in self.record.canvases for token in canvas]
        return [*self.request.prompt, *written][: self.cache.length]

    @property
    def adapter_digest(self) -> str | None:
        """What tells its adapter from all others, as the prefix cache must."""
        return None if self.adapter is None else self.adapter.digest

    def begin(self, cache: "KVCache | None", branch: int | None) -> None:
        """Takes up work with what `cache` holds of the prompt; a chunk is to end at `branch` tokens of it."""
        self.record.restart()
        if cache is not None:
            self.cache = cache
        self.pending = list(self.request.prompt[self.cache.length :])
        self.branch = None if branch is None else branch - self.cache.length

    def encoded(self, count: int) -> bool:
        """Notes that the first `count` pending tokens are in the cache; returns whether a prefix ends there."""
        del self.pending[:count]
        if not self.pending:
            self.branch = None
            return True
        if self.branch is None:
            return False
        self.branch = self.branch - count or None
        return self.branch is None


@dataclass(frozen=True)
class Chunk:
    """What one forward reads of one sequence: its first `encode` pending tokens, then its canvas if it `denoises`."""

    sequence: Sequence
    encode: int
    denoises: bool

    @property
    def tokens(self) -> int:
        """Rows of the forward."""
        return self.encode + self.canvas_rows

    @property
    def canvas_rows(self) -> int:
        """Those of them that are of its canvas."""
        return self.denoises * self.sequence.canvas_rows

    @property
    def is_last(self) -> bool:
        """Whether nothing is left to be encoded after it."""
        return self.encode == len(self.sequence.pending)


@dataclass(frozen=True)
class WorkItem:
    """What a sequence wants of the forward that it is in.

    encode: tokens that an encoder pass appends to its cache. canvas: what a denoiser pass then reads, and all of whose
    rows are read out; held: the constraint it is under. read_last: how many of the last encoded tokens' rows are read
    out before them. is_revocable: whether the encoded tokens may be taken back.
    """

    chunk: Chunk
    encode: list[int]
    canvas: "CanvasState | None" = None
    held: "ConstrainedCanvas | None" = None
    read_last: int = 0
    is_revocable: bool = False

    @property
    def sequence(self) -> Sequence:
        return self.chunk.sequence


@dataclass(frozen=True)
class DecodingOutcome:
    """What a forward made of a sequence whose rows were read out: a denoising step, tokens, or an error.

    log_probs, top: of the tokens, where they are asked for; in mode "diffusion" log-probabilities of tokens that had
    been final. entropies: of the tokens that the causal pass writes, in nats. draft: what was verified. verify: what
    the next forward is to verify, tokens that are kept if the causal pass would have written them; None where there is
    nothing to verify.
    """

    step: "DenoisingStep | None" = None
    canvas: "CanvasState | None" = None
    held: "ConstrainedCanvas | None" = None
    token_ids: tuple[int, ...] = ()
    log_probs: tuple[float, ...] = ()
    entropies: tuple[float, ...] = ()
    top: "TopTokens | None" = None
    draft: tuple[int, ...] = ()
    verify: tuple[int, ...] | None = None
    error: Exception | None = None


class DecodingMode(Protocol):
    """How sequences are decoded, by one model. What a sequence has come to is kept in the sequence alone."""

    def check(self, request: "Request") -> None:
        """Raises ValueError for a request that the model cannot answer in this mode."""

    def canvas_length(self, request: "Request") -> int:
        """Returns the rows of a denoiser pass, 0 where the mode has none."""

    def record(self, request: "Request") -> "AnswerRecord":
        """Returns the empty answer, with its room, its stop ids and its seed."""

    def max_cached(self, request: "Request") -> int:
        """Returns how many of the prompt's tokens may come from the cache: the rows behind them are read out."""

    def work(self, chunk: Chunk) -> WorkItem:
        """Returns what the sequence wants of the next forward, of which `chunk` has room."""

    def read(self, items: list[WorkItem], head: "OutputHead", hidden: "Tensor") -> list[DecodingOutcome]:
        """Reads out the rows hidden [R, D] of some sequences of this mode, one behind the other.

        Returns what that means for each of the sequences, and changes none of them.
        """

    def take(self, sequence: Sequence, outcome: DecodingOutcome) -> "Iterator[Event]":
        """Takes the sequence further; yields what happened, a Finished at last when it has ended."""
