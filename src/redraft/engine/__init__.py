"""Many requests at once, each answered as `generation/` would answer it alone. Token ids only."""

from redraft.engine.core import EngineCore
from redraft.engine.request import (
    MOST_TOP,
    Admitted,
    Cancelled,
    CanvasCommitted,
    Event,
    Failed,
    Finished,
    Phase,
    QueueFull,
    Request,
    StepTaken,
)
from redraft.engine.scheduler import Limits
from redraft.engine.thread import EngineLoop, EngineState, Shutdown

__all__ = [
    "MOST_TOP",
    "Admitted",
    "Cancelled",
    "CanvasCommitted",
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
    "StepTaken",
]
