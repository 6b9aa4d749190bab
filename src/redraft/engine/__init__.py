"""Many requests at once, each answered as `generation/` would answer it alone. Token ids only."""

from redraft.engine.core import EngineCore
from redraft.engine.events import (
    ENDS,
    Admitted,
    Cancelled,
    CanvasCommitted,
    Event,
    Failed,
    Finished,
    StepTaken,
    TokensScored,
)
from redraft.engine.request import MAX_TOP, MODE_NAMES, QueueFull, Request
from redraft.engine.scheduler import Limits
from redraft.engine.thread import EngineState, EngineThread, Shutdown

__all__ = [
    "ENDS",
    "MAX_TOP",
    "MODE_NAMES",
    "Admitted",
    "Cancelled",
    "CanvasCommitted",
    "EngineCore",
    "EngineState",
    "EngineThread",
    "Event",
    "Failed",
    "Finished",
    "Limits",
    "QueueFull",
    "Request",
    "Shutdown",
    "StepTaken",
    "TokensScored",
]
