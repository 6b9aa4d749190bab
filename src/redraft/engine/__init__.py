"""Many requests at once, each answered as `generation/` would answer it alone. Token ids only."""

from redraft.engine.core import EngineCore
from redraft.engine.loop import EngineLoop, EngineState, Shutdown
from redraft.engine.request import (
    MOST_TOP,
    Began,
    Cancelled,
    Committed,
    Drafted,
    Event,
    Failed,
    Finished,
    Phase,
    QueueFull,
    Request,
)
from redraft.engine.scheduler import Limits

__all__ = [
    "MOST_TOP",
    "Began",
    "Cancelled",
    "Committed",
    "Drafted",
    "EngineCore",
    "EngineLoop",
    "EngineState",
    "Event",
    "Failed",
    "Finished",
    "Limits",
    "Phase",
    "QueueFull",
    "Request",
    "Shutdown",
]
