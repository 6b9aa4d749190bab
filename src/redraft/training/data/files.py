"""Training data as people have it: prompts with answers, conversations, and tables, as rows of one kind.

Each row has one answer that is supervised. A conversation makes a row of each of the assistant's turns, or of its last.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redraft.batch.parquet import parse_parquet
from redraft.evaluation.cases import Case
from redraft.utils.rows.formats import PARSERS, SUFFIXES, BadRow
from redraft.utils.rows.source import LineSource
from redraft.utils.rows.template import PromptTemplate, column_text

ANSWERS = ("answer", "completion")
"""Columns that hold the answer to that of the column "prompt"."""
TURNS = ("all", "last")
PARQUET_SUFFIX = ".parquet"


@dataclass(frozen=True, kw_only=True)
class RowFormat:
    """How rows are made of a file's columns. ValueError for a template without columns, and for unknown turns.

    template: the prompt, with {columns}; None: the column "prompt". columns: what the answer is made of: the text of
    one, or a JSON object of several; none: "answer" or "completion". turns: which of the assistant's turns in a
    conversation are supervised, "all" or "last".
    """

    template: str | None = None
    columns: tuple[str, ...] = ()
    turns: str = TURNS[0]

    def __post_init__(self) -> None:
        if self.turns not in TURNS:
            raise ValueError(f"turns is {self.turns!r}, must be {' or '.join(TURNS)}")
        if self.template is not None:
            PromptTemplate(self.template)

    def __str__(self) -> str:
        return json.dumps([self.template, self.columns, self.turns], ensure_ascii=False)


@dataclass(frozen=True, kw_only=True)
class TrainingRow(Case):
    """A prompt, or a conversation, and its answer.

    reply: the answer as a message, where it is more than a text. tools: those that the conversation has.
    conversation_key: what tells a conversation of several turns from others.
    """

    reply: Mapping[str, object] | None = None
    tools: tuple[Mapping[str, object], ...] = ()
    conversation_key: str = ""

    @property
    def key(self) -> str:
        """What tells its prompt from others; the turns of one conversation belong together."""
        return self.conversation_key or self.prompt

    @property
    def is_text(self) -> bool:
        """Whether prompt and answer say all of it, so that others can ask it and compare."""
        is_plain = not self.messages or self.messages[-1].get("content") == self.prompt
        return self.reply is None and not self.tools and is_plain


def read_training_rows(path: Path, form: RowFormat) -> list[TrainingRow | BadRow]:
    """Reads JSON lines, CSV, TSV (each also as .gz) or Parquet; a row that cannot be used is a BadRow.

    Raises ValueError for a file of another kind, and where nothing is in it.
    """
    rows: list[TrainingRow | BadRow] = []
    for number, columns in _columns(path):
        if isinstance(columns, BadRow):
            rows.append(columns)
            continue
        try:
            rows += _rows_of(columns, form, str(path), number)
        except ValueError as error:
            rows.append(BadRow(number, f"{place_of(path, number)}: {error}", columns))
    if not rows:
        raise ValueError(f"{path} has no rows")
    return rows


def place_of(path: str | Path | None, number: int | None) -> str:
    """Returns where a row stands in its file: "line 3", or "row 3" of Parquet, which has no lines."""
    return f"{'row' if str(path).lower().endswith(PARQUET_SUFFIX) else 'line'} {number}"


def _columns(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | BadRow]]:
    if path.suffix.lower() == PARQUET_SUFFIX:
        parsed = parse_parquet(path)
    else:
        source = LineSource(path)
        kind = SUFFIXES.get(source.suffix)
        if kind is None:
            # A file that is not there says so, whatever its name.
            path.stat()
            known = ", ".join((*SUFFIXES, PARQUET_SUFFIX))
            raise ValueError(f"{path} has none of the endings {known}: rename it, or convert it to one of them")
        parsed = PARSERS[kind](source.lines())
    for row in parsed:
        yield (row.line, row) if isinstance(row, BadRow) else row


def _rows_of(columns: Mapping[str, Any], form: RowFormat, file: str, line: int) -> Iterator[TrainingRow]:
    messages = columns.get("messages")
    if form.template is None and not form.columns and messages is not None:
        yield from _turns(messages, columns.get("tools") or (), form.turns, file, line)
        return
    answer_name = next((name for name in ANSWERS if columns.get(name) is not None), ANSWERS[0])
    prompt, answer = columns.get("prompt"), columns.get(answer_name)
    if form.template is None and not form.columns and isinstance(prompt, list) and isinstance(answer, list):
        # As TRL has conversations.
        yield from _turns([*prompt, *answer], columns.get("tools") or (), "last", file, line)
        return
    text = PromptTemplate(form.template).fill(columns) if form.template is not None else _text(columns, "prompt")
    yield TrainingRow(text, _answer(columns, form.columns, answer_name), file=file, line=line)


def _answer(columns: Mapping[str, Any], names: Sequence[str], otherwise: str) -> str:
    if not names:
        return _text(columns, otherwise)
    if len(names) == 1:
        return _text(columns, names[0])
    if missing := [name for name in names if name not in columns]:
        column_text(columns, missing[0])  # raises, with those that there are
    return json.dumps({name: columns[name] for name in names}, ensure_ascii=False)


def _text(columns: Mapping[str, Any], name: str) -> str:
    text = column_text(columns, name)
    if not text.strip():
        raise ValueError(f"{name!r} is empty, must be text")
    return text


def _turns(messages: Any, tools: Any, turns: str, file: str, line: int) -> Iterator[TrainingRow]:
    """Yields a row for each of the assistant's turns, or for the last; one of weight 0 is none."""
    if not isinstance(messages, list) or not all(
        isinstance(one, dict) and isinstance(one.get("role"), str) for one in messages
    ):
        raise ValueError("messages must be a list of objects with a role")
    if not isinstance(tools, Sequence) or isinstance(tools, str):
        raise ValueError("tools must be a list")
    supervised = [
        at for at, one in enumerate(messages) if at and one["role"] == "assistant" and one.get("weight", 1) != 0
    ]
    if not supervised:
        raise ValueError("messages has no turn of the assistant behind another one: there is nothing to learn")
    read = [{name: value for name, value in one.items() if name != "weight" and value is not None} for one in messages]
    before_last = read[: supervised[-1]]
    key = json.dumps(before_last, ensure_ascii=False) if len(before_last) > 1 else ""
    for at in supervised if turns == "all" else supervised[-1:]:
        reply, before = read[at], tuple(read[:at])
        content = reply.get("content", "")
        is_text = reply.keys() <= {"role", "content"} and isinstance(content, str)
        if is_text and not content.strip():
            raise ValueError(f"messages.{at} of the assistant is empty: leave it out, or write an answer")
        last = before[-1].get("content", "")
        yield TrainingRow(
            last if isinstance(last, str) else json.dumps(last, ensure_ascii=False),
            content if isinstance(content, str) else "",
            file=file, line=line, messages=before, reply=None if is_text else reply, tools=tuple(tools),
            conversation_key=key,
        )  # fmt: skip
