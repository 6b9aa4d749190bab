"""The example of a table of mails: as a whole, from its rows to an answer of the served adapter."""

import csv
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "support-mails"


def run(program: str, *arguments: object) -> str:
    """Runs a program of the example; what it prints."""
    done = subprocess.run(
        [sys.executable, EXAMPLE / program, *map(str, arguments)],
        check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    return done.stdout


def mails(table: Path) -> list[str]:
    with table.open(newline="", encoding="utf-8") as file:
        return [row["mail"] for row in csv.DictReader(file)]


def test_no_new_mail_is_one_of_the_rows(tmp_path):
    run("make_mails.py", tmp_path)
    rows, new = mails(tmp_path / "mails.csv"), mails(tmp_path / "new_mails.csv")
    assert (len(set(rows)), len(set(new))) == (200, 100)
    assert not {*rows} & {*new}


def test_the_curves_rows_are_nested_and_no_test_has_one_of_them(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLE)
    curve = importlib.import_module("curve")
    curve.make_data(tmp_path, [20, 3000], 100)
    few, many = mails(tmp_path / "20.csv"), mails(tmp_path / "3000.csv")
    assert many[:20] == few
    assert len(set(many)) == 3000
    for name in ("known", "unknown"):
        tested = mails(tmp_path / f"{name}.csv")
        assert len(set(tested)) == 100
        assert not {*tested} & {*many}
        first = json.loads((tmp_path / f"{name}.jsonl").read_text().splitlines()[0])
        assert first["prompt"] == f"Route this mail: {tested[0]}"
        assert json.loads(first["answer"]).keys() == {"team", "urgency", "order"}
    scores = {mode: {"exact": 0.5, "steps_per_canvas": 5.0} for mode in curve.MODES}
    points = {str(n): dict.fromkeys(curve.TESTS, scores) for n in (20, 3000)}
    curve.draw(points, tmp_path / "curve.svg")
    assert (tmp_path / "curve.svg").read_text().startswith("<?xml")


@pytest.mark.slow
def test_the_curve_is_measured_and_goes_on_where_it_was(tmp_path):
    arguments = (tmp_path, "--steps", 1, "--tested", 1)
    run("curve.py", *arguments, "--rows", "50")
    points = json.loads((tmp_path / "curve.json").read_text())
    assert points["50"].keys() == {"tested", "known", "unknown"}
    # What is measured is not measured again.
    (tmp_path / "curve.json").write_text(json.dumps({"50": {**points["50"], "tested": "before"}}))
    run("curve.py", *arguments, "--rows", "50,60")
    points = json.loads((tmp_path / "curve.json").read_text())
    assert (points["50"]["tested"], points["60"]["tested"]) == ("before", 1)
    assert (tmp_path / "curve.svg").exists()


@pytest.mark.slow
def test_two_hundred_rows_become_a_served_adapter(tmp_path):
    result = json.loads(run("to_served_adapter.py", tmp_path, "--tested", 50).splitlines()[-1])
    # The bundled model knows neither these fields nor their labels, and says so.
    assert result["before"]["at most 48 steps"]["exact"] == 0
    after = result["after"]["at most 48 steps"]
    assert after["exact"] > 0.6
    assert after["steps_per_canvas"] < 10
    assert result["models"] == ["bundled", "mails"]
    assert json.loads(result["answer"]) == {"team": "delivery", "urgency": "high", "order": "D4711"}
