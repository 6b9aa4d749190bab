"""What the engine is asked and what it tells: requests, their phases, and events. Token ids only, no torch."""

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redraft.diffusion.settings import SamplerSettings
    from redraft.generation import DenoisingStep, Generation
    from redraft.model import TopTokens


MOST_TOP = 20
"""The most of a position's likeliest tokens that can be asked for."""


class Phase(enum.Enum):
    """Where a request stands: what the next forward that serves it has to begin with."""

    PREFILL = "prefill"
    DENOISE = "denoise"
    COMMIT = "commit"
    DONE = "done"


class QueueFull(RuntimeError):
    """The engine holds as many waiting requests as it may: ask again later."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One answer that is asked for.

    id: the caller's name for it, unlike that of any other request the engine holds; nothing is computed from it.
    prompt: token ids. settings: sampler settings, seed and choice among them. stop_ids: tokens that end the answer as
    an EOS does (None: the model's EOS ids). drafts: whether an event is wanted for every denoising step. top: how many
    of each position's likeliest tokens are wanted, with every draft and with what is committed. autoregressive: decode
    token by token through the encoder pass instead, beside the canvases, for comparison; each is then committed alone.
    """

    id: str
    prompt: tuple[int, ...]
    settings: "SamplerSettings"
    stop_ids: tuple[int, ...] | None = None
    drafts: bool = False
    top: int = 0
    autoregressive: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.top <= MOST_TOP:
            raise ValueError(f"top is {self.top}, must lie between 0 and {MOST_TOP}")
        if self.autoregressive and (self.top or self.drafts or self.stop_ids is not None):
            raise ValueError("token by token there are no drafts, no likeliest tokens and no stop ids; leave them out")


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
    """A denoising step of one request."""

    id: str
    step: "DenoisingStep"


@dataclass(frozen=True)
class CanvasCommitted:
    """A canvas is finished: the tokens that it adds to the answer, and how many denoising steps it took.

    top: the likeliest tokens of each position of the canvas in its last step, where they were asked for.
    """

    id: str
    token_ids: tuple[int, ...]
    steps: int
    top: "TopTokens | None" = None


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


Event = Admitted | StepTaken | CanvasCommitted | Finished | Failed | Cancelled
