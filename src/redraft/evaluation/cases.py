"""Cases: prompts with their right answers, from a shipped test set or a user's file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redraft.utils.json_files import parse_json_lines


@dataclass(frozen=True)
class Case:
    """A prompt and its right answer.

    seen: whether training had this wording or style (None: unknown); held_out_values: training never had values from
    these lists; group: the kind of case it is counted with, where a task has several; line: its line in its file;
    file: that, where it is known. messages: the whole conversation, where it is more than the prompt, which is then its
    last message.
    """

    prompt: str
    answer: str
    seen: bool | None = None
    held_out_values: bool = False
    group: str | None = None
    line: int | None = None
    messages: tuple[Mapping[str, object], ...] = ()
    file: str | None = None

    @property
    def conversation(self) -> str | Sequence[Mapping[str, object]]:
        """What is sent: the messages, or the prompt alone."""
        return self.messages or self.prompt


def read_cases(path: Path, *, per_split: int | None = None) -> list[Case]:
    """Reads a shipped test set, or its first `per_split` cases with seen wording and as many with unseen wording."""
    cases = [_case(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    if per_split is None:
        return cases
    splits = [[case for case in cases if case.seen == seen] for seen in (True, False)]
    if per_split > (available := min(map(len, splits))):
        raise ValueError(f"examples is {per_split}, but {path.name} has {available} of each kind")
    return [case for split in splits for case in split[:per_split]]


def _case(row: dict[str, Any]) -> Case:
    messages = tuple(row.pop("messages", ()))
    return Case(messages=messages, **({"prompt": messages[-1]["content"]} if messages else {}), **row)


def read_rows(path: Path) -> list[Case]:
    """Reads JSON lines, each an object with "prompt" and "answer". Raises ValueError with its line for a bad one.

    In place of the prompt a row may have the "messages" of a conversation.
    """
    cases = []
    for number, row in parse_json_lines(path, path.read_bytes().split(b"\n")):
        where = f"{path}, line {number}"
        messages = row.get("messages")
        if isinstance(messages, list) and messages and all(isinstance(one, dict) for one in messages):
            row["prompt"] = messages[-1].get("content")
        else:
            messages = ()
        for key in ("prompt", "answer"):
            value = row.get(key)
            if not isinstance(value, str) or not value.strip():
                raise ValueError(f'{where}: "{key}" is {json.dumps(value)[:40]}, must be text that is not empty')
        cases.append(Case(row["prompt"], row["answer"], line=number, messages=tuple(messages)))
    if not cases:
        raise ValueError(f"{path} has no rows")
    return cases
