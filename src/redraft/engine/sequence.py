"""The state of one request in the engine, from its submission to its end. Imports no torch."""

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redraft.diffusion.sampler import CanvasState
    from redraft.engine.modes.mode import DecodingMode
    from redraft.engine.request import Request
    from redraft.generation.result import AnswerRecord
    from redraft.model.cache import KVCache


class Phase(enum.Enum):
    """What the tokens that a sequence has yet to encode are: its prompt, or what it has written."""

    PREFILL = "prefill"
    COMMIT = "commit"


@dataclass(eq=False, kw_only=True)
class Sequence:
    """A request and how far it has come.

    Written once: request, mode, canvas_length (rows of a denoiser pass over it; 0: it has none), max_tokens (what its
    cache may come to hold). By the mode: canvas (the one under way), pending (tokens yet to be encoded), phase, record
    (the answer so far). By the engine core: cache, phase and pending after a forward, branch (where in the pending
    tokens a chunk has to end, because a prefix that others share ends there). By the scheduler: last_served, the last
    forward that served it.
    """

    request: "Request"
    mode: "DecodingMode"
    record: "AnswerRecord"
    cache: "KVCache"
    canvas_length: int
    max_tokens: int
    phase: Phase = Phase.PREFILL
    pending: list[int] = field(default_factory=list)
    canvas: "CanvasState | None" = None
    branch: int | None = None
    last_served: int = -1

    @property
    def committed(self) -> list[int]:
        """The tokens whose keys and values the cache holds."""
        written = [token for canvas in self.record.canvases for token in canvas]
        return [*self.request.prompt, *written][: self.cache.length]

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
        return self.encode + self.denoises * self.sequence.canvas_length

    @property
    def is_last(self) -> bool:
        """Whether nothing is left to be encoded after it."""
        return self.encode == len(self.sequence.pending)
