"""What the engine tells of its requests: the one family of events. Token ids only, no torch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redraft.generation.result import DenoisingStep, Generation
    from redraft.model.readout.query import TopTokens


@dataclass(frozen=True)
class Admitted:
    """A request has left the queue.

    at: a time of time.perf_counter(). cached_tokens: of its prompt, those that had been read for others.
    """

    id: str
    at: float
    cached_tokens: int


@dataclass(frozen=True)
class StepTaken:
    """A denoising step of one request, for those that ask for drafts."""

    id: str
    step: "DenoisingStep"


@dataclass(frozen=True)
class CanvasCommitted:
    """Tokens are final: those that a finished canvas adds to the answer, and how many denoising steps it took.

    A token that is decoded autoregressively is committed alone and took none. top: the likeliest tokens of each
    position, where they were asked for; of a canvas, in its last step. Of an answer that is written causally, log_probs
    are those of the tokens themselves, where they were asked for, and draft is what was verified: the leading tokens
    that are equal were kept from it, the last one is the causal pass's own.
    """

    id: str
    token_ids: tuple[int, ...]
    steps: int
    top: "TopTokens | None" = None
    log_probs: tuple[float, ...] = ()
    draft: tuple[int, ...] = ()


@dataclass(frozen=True)
class TokensScored:
    """A stretch of a prompt has been read, for a request of mode "scoring".

    token_ids: the prompt's tokens behind those just read, and behind the last one the likeliest. log_probs: of each, as
    the causal pass has them. So the prompt's first token has none. top: the likeliest tokens in the place of each.
    """

    id: str
    token_ids: tuple[int, ...]
    log_probs: tuple[float, ...]
    top: "TopTokens"


@dataclass(frozen=True)
class Finished:
    """The last event of a request that was answered."""

    id: str
    generation: "Generation"


@dataclass(frozen=True)
class Failed:
    """The last event of a request that cannot be answered, and why."""

    id: str
    error: Exception


@dataclass(frozen=True)
class Cancelled:
    """The last event of a request that was given up: by its caller, or because the engine was shut down."""

    id: str


Event = Admitted | StepTaken | CanvasCommitted | TokensScored | Finished | Failed | Cancelled
ENDS = Finished | Failed | Cancelled
"""The events of which each request has one, as its last."""
