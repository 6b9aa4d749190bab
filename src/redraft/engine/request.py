"""What the engine is asked and what it tells: requests, their phases, and events. Token ids only, no torch."""

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redraft.generation import DenoisingStep, Generation, SamplerSettings


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
    an EOS does (None: the model's EOS ids). drafts: whether an event is wanted for every denoising step.
    """

    id: str
    prompt: tuple[int, ...]
    settings: "SamplerSettings"
    stop_ids: tuple[int, ...] | None = None
    drafts: bool = False


@dataclass(frozen=True)
class Drafted:
    """A denoising step of one request."""

    id: str
    step: "DenoisingStep"


@dataclass(frozen=True)
class Committed:
    """A canvas is finished: the tokens that it adds to the answer."""

    id: str
    token_ids: tuple[int, ...]


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


Event = Drafted | Committed | Finished | Failed | Cancelled
