"""Who watches a run while it trains: a live line on a terminal, TensorBoard."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, kw_only=True)
class StepProgress:
    """Where a run stands after a step.

    canvas_loss, encoder_loss, tokens_per_second: means since the last line of progress, `seconds` ago. memory_bytes:
    the most that the process, or on a GPU its tensors, took so far; None where that is unknown.
    """

    step: int
    total: int
    canvas_loss: float
    encoder_loss: float
    tokens_per_second: float
    seconds: float
    seconds_left: float
    memory_bytes: int | None

    @property
    def begun(self) -> str:
        """The step and its losses, in words."""
        return f"step {self.step}/{self.total}  canvas {self.canvas_loss:.4f}  encoder {self.encoder_loss:.4f}"

    @property
    def rest(self) -> str:
        """The speed, and the hours, minutes and seconds that are left."""
        minutes, seconds = divmod(int(self.seconds_left), 60)
        left = f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02} left"
        return f"{self.tokens_per_second:,.0f} tokens/s  {left}"


class Watcher(Protocol):
    """Is told what a run does; only the first of several processes tells it."""

    def step(self, progress: StepProgress) -> None:
        """Is called after each step."""

    def logged(self, row: Mapping[str, Any]) -> None:
        """Is called with each row of the run's log."""


class TensorBoardEvents:
    """Writes the numbers of a run's log as TensorBoard's events into a folder. Requires the package tensorboard."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def step(self, progress: StepProgress) -> None:
        pass

    def logged(self, row: Mapping[str, Any]) -> None:
        step, kind = row["step"], row["kind"]
        if kind not in ("progress", "validation"):
            return
        if self._writer is None:
            # Imported by those who ask for it alone. Events of steps that are run again are taken back.
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), purge_step=step)
        for name, value in row.items():
            if name not in ("step", "kind"):
                self._writer.add_scalar(f"{kind}/{name}", value, step)
        self._writer.flush()
