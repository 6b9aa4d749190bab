"""A run's log and the report that is drawn from it."""

import json
import re

import pytest

from redraft.training.run.log import RunLog, read_rows
from redraft.training.run.report import compare, summarize, write_comparison, write_report


def progress(log: RunLog, step: int) -> None:
    log.add(
        "progress", step, canvas_loss=1 / step, encoder_loss=2.0, learning_rate=0.1, tokens_per_second=10.0, seconds=2.0
    )


def validation(log: RunLog, step: int, exact: float, canvas: float = 1.0) -> None:
    log.add("validation", step, exact=exact, steps_per_canvas=4.0, canvas_loss=canvas, encoder_loss=1.0)


def test_rows_behind_the_step_that_a_run_goes_on_from_are_said_again(tmp_path):
    log = RunLog(tmp_path, 0)
    for step in (1, 2, 3):
        progress(log, step)
    assert [row["step"] for row in RunLog(tmp_path, 2).rows] == [1, 2]
    assert [row["step"] for row in read_rows(tmp_path)] == [1, 2]


def test_a_line_that_a_kill_cut_off_is_left_out(tmp_path):
    log = RunLog(tmp_path, 0)
    progress(log, 1)
    with log.path.open("a") as file:
        file.write('{"kind": "progr')
    log = RunLog(tmp_path, 5)
    progress(log, 2)
    assert [row["step"] for row in read_rows(tmp_path)] == [1, 2]


def test_the_best_validation_and_patience(tmp_path):
    log = RunLog(tmp_path, 0)
    assert log.best is None
    assert not log.is_stale(1)
    for step, (exact, canvas) in enumerate([(0.5, 1.0), (0.7, 1.0), (0.7, 0.8), (0.7, 0.8), (0.6, 0.1)], start=1):
        validation(log, step, exact, canvas)
    assert log.best is not None
    assert log.best["step"] == 3
    assert [log.is_stale(patience) for patience in (0, 1, 2, 3)] == [False, True, True, False]


def test_a_report_needs_data(tmp_path):
    for draw in (summarize, write_report):
        with pytest.raises(ValueError, match=r"log.jsonl has no progress yet"):
            draw(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_report_stands_alone_and_shows_what_was_logged(tmp_path):
    log = RunLog(tmp_path, 0)
    progress(log, 10)
    progress(log, 20)
    summary = summarize(tmp_path)
    assert (summary["step"], summary["seconds"], summary["tokens_per_second"]) == (20, 4.0, 10.0)
    assert summary["best"] is None
    without = write_report(tmp_path).read_text()
    assert without.count("no validations") == 2
    validation(log, 20, 0.625)
    page = write_report(tmp_path).read_text()
    assert "no validations" not in page
    assert "0.625" in page
    assert json.dumps(summarize(tmp_path)["best"]["exact"]) == "0.625"
    for panel in ("losses", "exact match", "steps per canvas", "learning rate", "tokens per second"):
        assert panel in page
    # Nothing is fetched: no address but those of namespaces and licences, and no script.
    assert not re.search(r"(src|href)=.https?:", page)
    assert "<script" not in page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.jsonl", "report.html"]


def test_runs_are_compared_by_step_and_by_minute(tmp_path):
    folders = [tmp_path / "muon" / "run", tmp_path / "adamw" / "run"]
    for number, folder in enumerate(folders, start=1):
        folder.mkdir(parents=True)
        log = RunLog(folder, 0)
        for step in (10, 20):
            progress(log, step)
            validation(log, step, exact=step / 100 * number)
    panels = compare(folders)
    assert [(panel.title, panel.over) for panel in panels] == [
        (title, over)
        for title in ("canvas loss (nats)", "encoder loss (nats)", "exact match, validation")
        for over in ("step", "minute")
    ]
    assert [line.label for line in panels[0].lines] == ["muon/run", "adamw/run"]
    assert (panels[0].lines[1].x, panels[0].lines[1].y) == ([10, 20], [0.1, 0.05])
    assert panels[1].lines[0].x == [2 / 60, 4 / 60]
    assert (panels[4].lines[1].x, panels[4].lines[1].y) == ([10, 20], [0.2, 0.4])
    assert panels[5].lines[1].x == [2 / 60, 4 / 60]
    assert write_comparison(folders, tmp_path / "both.svg").read_text().startswith("<svg")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has no progress yet"):
        write_comparison([folders[0], tmp_path / "empty"], tmp_path / "both.svg")
