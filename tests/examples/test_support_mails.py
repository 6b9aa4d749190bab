"""The example of a table of mails: as a whole, from its rows to an answer of the served adapter."""

import csv
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


@pytest.mark.slow
def test_two_hundred_rows_become_a_served_adapter(tmp_path):
    result = json.loads(run("to_served_adapter.py", tmp_path, "--tested", 50).splitlines()[-1])
    # The bundled model knows neither these fields nor their labels.
    assert result["before"]["at most 48 steps"]["exact"] == 0
    after = result["after"]["at most 48 steps"]
    assert after["exact"] > 0.6
    assert after["steps_per_canvas"] < result["before"]["at most 48 steps"]["steps_per_canvas"]
    assert result["models"] == ["bundled", "mails"]
    assert json.loads(result["answer"]) == {"team": "delivery", "urgency": "high", "order": "D4711"}
