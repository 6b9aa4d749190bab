"""Cases: prompts with their right answers, from the sets that are shipped or from a file of the user's."""

import json
from dataclasses import dataclass
from pathlib import Path

from redraft.bundled import TEST_SETS
from redraft.utils.json_files import parse_json_lines

DATA = TEST_SETS


@dataclass(frozen=True)
class Case:
    """A prompt and its right answer.

    `seen`: training had this wording or style (None: nobody knows); `held_out_values`: it never had values from these
    lists; `group`: what it is counted with, where a task has several kinds of cases; `line`: where in its file it was.
    """

    prompt: str
    answer: str
    seen: bool | None = None
    held_out_values: bool = False
    group: str | None = None
    line: int | None = None


def read_cases(path: Path, *, per_split: int | None = None) -> list[Case]:
    """A shipped test set, or its first `per_split` cases with seen wording and as many with unseen wording."""
    cases = [Case(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    if per_split is None:
        return cases
    splits = [[case for case in cases if case.seen == seen] for seen in (True, False)]
    if per_split > (most := min(map(len, splits))):
        raise ValueError(f"{per_split} examples of each kind are asked for, {path.name} has {most}")
    return [case for split in splits for case in split[:per_split]]


def read_rows(path: Path) -> list[Case]:
    """A user's JSON lines, each an object with "prompt" and "answer". ValueError names file and line of a bad one."""
    cases = []
    for number, row in parse_json_lines(path, path.read_bytes().split(b"\n")):
        where = f"{path}, line {number}"
        for key in ("prompt", "answer"):
            value = row.get(key)
            if not isinstance(value, str) or not value.strip():
                raise ValueError(f'{where}: "{key}" is {json.dumps(value)[:40]}, must be text that is not empty')
        cases.append(Case(row["prompt"], row["answer"], line=number))
    if not cases:
        raise ValueError(f"{path} has no rows")
    return cases
