"""A job's results: rows with their answers as JSON lines or Parquet, or OpenAI's output lines."""

import json
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from redraft.batch.executors.protocol import Outcome
from redraft.batch.parquet import json_value
from redraft.batch.progress import usage_of
from redraft.utils.rows.tables import probability_of

JSONL, OPENAI, PARQUET = "jsonl", "openai", "parquet"
RESULT_FORMATS = (JSONL, OPENAI, PARQUET)
FILE_NAMES = {JSONL: "results.jsonl", OPENAI: "results.jsonl", PARQUET: "results.parquet"}
ANSWER_TYPES: dict[str, set[str]] = {
    "id": {"str"}, "line": {"int"}, "text": {"str"}, "finish_reason": {"str"}, "seed": {"int"},
    "prompt_tokens": {"int"}, "answer_tokens": {"int"}, "warnings": {"str"}, "trust": {"float"}, "error": {"str"},
    "error_kind": {"str"},
}  # fmt: skip
"""Our columns of a table, with the types of their values."""
PREFIX = "answer."
"""Stands before a column of ours whose name the rows have already."""


@dataclass(frozen=True)
class ResultRow:
    """A row with what became of it. digest: its request's, "" of a faulty row. seed: its request's, if it has one."""

    line: int
    id: str
    digest: str
    columns: Mapping[str, Any]
    outcome: Outcome
    seed: int | None


def json_line(value: Mapping[str, Any]) -> bytes:
    # Half a surrogate pair, which JSON's escapes may be of, becomes that escape again.
    return (json.dumps(value, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def row_record(row: ResultRow) -> dict[str, Any]:
    """Returns a row with its answer. It has nothing that another run of the same job would have otherwise."""
    columns = {"columns": json_value(row.columns)} if row.columns else {}
    return {"id": row.id, "line": row.line, **columns, **answer_of(row.outcome, row.seed)}


def answer_of(outcome: Outcome, seed: int | None) -> dict[str, Any]:
    """Returns the answer, or the error, of an outcome as a row's record has it."""
    if error := outcome.get("error"):
        return {"error": error["message"], "error_kind": error["kind"]}
    body = outcome["body"]
    prompt_tokens, answer_tokens = usage_of(outcome)
    found: dict[str, Any] = {}
    for choice in reversed(list(_choices(body))):
        found = {
            name: value
            for name, value in {**choice, "texts": [choice["text"], *found.get("texts", [])]}.items()
            if value is not None
        }
    if len(found["texts"]) == 1:
        del found["texts"]
    found |= {"seed": seed} if seed is not None else {}
    found |= {"prompt_tokens": prompt_tokens, "answer_tokens": answer_tokens}
    return found | ({"warnings": body["warnings"]} if body.get("warnings") else {})


def table_record(row: ResultRow, names: Mapping[str, str]) -> dict[str, Any]:
    """Returns the cells of a row: its own columns, and ours beside them. names: what `own_columns` calls ours."""
    answer = {"id": row.id, "line": row.line, **answer_of(row.outcome, row.seed)}
    answer["warnings"] = "; ".join(answer["warnings"]) if "warnings" in answer else None
    answer["trust"] = probability_of(answer)
    return {**row.columns, **{column: answer.get(name) for name, column in names.items()}}


def own_columns(columns: Container[str]) -> dict[str, str]:
    """Returns what our columns are called beside those of the rows."""
    found = {}
    for name in ANSWER_TYPES:
        column = name
        while column in columns:
            column = PREFIX + column
        found[name] = column
    return found


def openai_record(row: ResultRow) -> dict[str, Any]:
    """Returns a line of OpenAI's output or error file."""
    outcome, digest, response = row.outcome, row.digest or f"line-{row.line}", None
    if "status" in outcome:
        response = {"status_code": outcome["status"], "request_id": f"req_{digest}", "body": outcome["body"]}
    error = outcome.get("error")
    told = None if error is None or response else {"code": error["kind"].replace(" ", "_"), "message": error["message"]}
    return {"id": f"batch_req_{digest}", "custom_id": row.id, "response": response, "error": told}


def _choices(body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields text, thoughts, calls and reason to end of each answer of a response, of whichever endpoint."""
    for choice in body.get("choices", ()):
        message = choice.get("message") or {"content": choice.get("text")}
        yield {
            "text": message.get("content") or "",
            "reasoning": message.get("reasoning_content"),
            "tool_calls": message.get("tool_calls"),
            "finish_reason": choice.get("finish_reason"),
            "spans": choice.get("spans"),
            "trust": choice.get("trust"),
        }
    if "choices" not in body:
        parts = [part for item in body.get("output", ()) for part in item.get("content") or ()]
        text = "".join(part.get("text", "") for part in parts)
        yield {
            "text": text, "finish_reason": body.get("status"), "spans": body.get("spans"), "trust": body.get("trust"),
        }  # fmt: skip
