"""What is told while a run trains: to a live line, to TensorBoard."""

import io
import sys

import pytest
from rich.console import Console

from redraft.cli.output import training_line
from redraft.training.run.log import RunLog
from redraft.training.run.watchers import StepProgress, TensorBoardEvents

NOW = StepProgress(
    step=30, total=80, canvas_loss=0.25, encoder_loss=0.5, tokens_per_second=1234.4, seconds=10.0, seconds_left=3725.0,
    memory_bytes=1_540_000_000,
)  # fmt: skip


def test_the_line_says_where_a_run_stands_and_is_gone_at_the_end():
    file = io.StringIO()
    with training_line(Console(file=file, force_terminal=True, width=120)) as line:
        assert line is not None
        line.step(NOW)
    shown = file.getvalue()
    assert "step 30/80  canvas 0.2500  encoder 0.5000  1,234 tokens/s  01:02:05 left  1.5 GB" in shown
    assert shown.endswith("\x1b[2K")


def test_without_a_terminal_there_is_none():
    file = io.StringIO()
    with training_line(Console(file=file)) as line:
        assert line is None
    assert file.getvalue() == ""


def test_watchers_get_the_rows_of_the_log(tmp_path):
    class Seen(list):
        def step(self, progress):
            pass

        def logged(self, row):
            self.append(row)

    seen = Seen()
    log = RunLog(tmp_path, 0, [seen])
    log.add("progress", 1, canvas_loss=2.0)
    assert seen == log.rows == [{"kind": "progress", "step": 1, "canvas_loss": 2.0}]


def test_tensorboard_gets_losses_and_validations(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = RunLog(tmp_path, 0, [TensorBoardEvents(tmp_path)])
    log.add("progress", 10, canvas_loss=2.0)
    log.add("limit", 10, most_steps=1, exact=0.5)
    log.add("validation", 10, exact=0.25)
    found = EventAccumulator(str(tmp_path))
    found.Reload()
    assert sorted(found.Tags()["scalars"]) == ["progress/canvas_loss", "validation/exact"]
    assert [(one.step, one.value) for one in found.Scalars("progress/canvas_loss")] == [(10, 2.0)]


def test_tensorboard_is_not_imported_before_there_is_an_event(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    log = RunLog(tmp_path, 0, [TensorBoardEvents(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == []
    with pytest.raises(ImportError):
        log.add("progress", 1, canvas_loss=2.0)
