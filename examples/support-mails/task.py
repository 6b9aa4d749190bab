"""The task of these examples: its prompt, the columns that are the answer, its tests, and the command that does it."""

import csv
import json
import sys
from pathlib import Path

PROMPT = "Route this mail: {mail}"
COLUMNS = ("team", "urgency", "order")


def redraft(*arguments: object) -> list[str]:
    """Returns the command with these arguments, of the Python that runs this."""
    return [sys.executable, "-m", "redraft", *map(str, arguments)]


def write_cases(table: Path, count: int) -> Path:
    """Writes the first rows of a table as `redraft eval rows` reads them: prompts with the JSON that is right."""
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[:count]
    cases = [
        {"prompt": PROMPT.format(**row), "answer": json.dumps({name: row[name] for name in COLUMNS})} for row in rows
    ]
    path = table.with_suffix(".jsonl")
    path.write_text("".join(json.dumps(case) + "\n" for case in cases), encoding="utf-8")
    return path
