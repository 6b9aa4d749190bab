"""Files of rows as requests: what is a fault, whose it is, and what every request has."""

import json
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID

import pyarrow.parquet
import pytest

from redraft.batch.parquet import json_value
from redraft.batch.requests import JobRow
from redraft.batch.rows import JobFile
from redraft.server.batches.executor import check_body


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def line(id="a", **given):
    body = {"messages": [{"role": "user", "content": "x"}]}
    return {"custom_id": id, "method": "POST", "url": "/v1/chat/completions", "body": body, **given}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"custom_id": 7}, "line 2: custom_id is 7, must be a text that is not empty"),
        ({"custom_id": " "}, "line 2: custom_id is ' ', must be a text"),
        ({"method": "GET"}, "line 2: method is 'GET', must be 'POST'"),
        ({"url": "/v1/embeddings"}, "line 2: url is '/v1/embeddings', must be one of /v1/chat/completions,"),
        ({"body": []}, "line 2: body is list, must be an object"),
        ({"extra": 1}, "line 2: 'extra' is not a key of a batch line"),
        ({"body": {"messages": []}}, "line 2: messages: must have at least 1 element"),
        ({"body": {"messages": [{"role": "user", "content": 3}]}}, "line 2: messages.0.content: must be a string"),
        (
            {"body": {**line()["body"], "temperture": 1}},
            "line 2: temperture is not supported; did you mean temperature?",
        ),
        ({"body": {**line()["body"], "stream": True}}, "line 2: stream is true, but an answer of a batch is whole"),
        ({"body": {**line()["body"], "model": "gpt"}}, "line 2: model is 'gpt', must be 'tiny', or left out"),
    ],
)
def test_a_faulty_batch_line_is_told_with_its_place(tmp_path, change, fault):
    rows = [line("a"), line("b") | change, line("c")]
    path = write(tmp_path, "in.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    file = JobFile(path, check_body=lambda url, body: check_body(url, body, models=["tiny"]))
    checked = file.check()
    assert (file.format, checked.rows, checked.bad) == ("openai", 3, 1)
    assert checked.faults[0].fault.startswith(fault)
    assert [isinstance(row, JobRow) for row in file.rows(1)] == [True, False, True]


def test_what_is_no_fault(tmp_path):
    text = "\r\n".join(["\ufeff" + json.dumps(line("a")), "", "  ", json.dumps(line("b"))])
    checked = JobFile(write(tmp_path, "in.jsonl", text)).check()
    assert (checked.rows, checked.bad) == (2, 0)
    table = "\ufeffid;text\r\n1;a\r\n\r\n2;b"
    file = JobFile(write(tmp_path, "in.csv", table), template="say {text}")
    assert file.check().bad == 0
    assert [(row.id, row.body["messages"][0]["content"], row.columns) for row in file.rows(0)] == [
        ("1", "say a", {"id": "1", "text": "a"}), ("2", "say b", {"id": "2", "text": "b"}),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("in.jsonl", "", {}, "has no rows"),
        ("in.jsonl", '{"id":1,"prompt":"x"}\n\n{"id":"1","prompt":"y"}\n', {}, "lines 1 and 3 have the same id '1'"),
        ("in.jsonl", '{"prompt":"x","id":"line-2"}\n{"prompt":"y"}\n', {}, "have the same id 'line-2'"),
        ("in.xlsx", "x", {}, "does not look like rows: name its format"),
        ("in.txt", "x", {"format": "xml"}, "the format of the rows is 'xml', must be one of text, jsonl"),
        ("in.jsonl", json.dumps(line()), {"format": "openai", "template": "{a}"}, "are whole requests: leave out a"),
        ("in.parquet", "x", {}, "in.parquet cannot be read as Parquet: "),
    ],
)
def test_a_file_that_is_refused(tmp_path, name, content, options, message):
    path = write(tmp_path, name, content)
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        JobFile(path, **options).check()


@pytest.mark.parametrize(
    ("id", "fault"),
    [
        ('{"a": 1}', """line 1: 'id' is {"a": 1}, must be text or a number"""),
        ("true", "line 1: 'id' is true, must be text or a number"),
        ("null", None),
        ('" "', None),
        ("7", None),
    ],
)
def test_an_id_is_text_or_a_number_also_where_no_column_is_named(tmp_path, id, fault):
    checked = JobFile(write(tmp_path, "in.jsonl", f'{{"id": {id}, "prompt": "x"}}')).check()
    assert [row.fault for row in checked.faults] == ([] if fault is None else [fault])


@pytest.mark.parametrize("column", ["id", "when"])
def test_a_date_in_the_place_of_text_is_told(tmp_path, column):
    pyarrow.parquet.write_table(pyarrow.table({"prompt": ["x"], column: [date(2024, 3, 4)]}), tmp_path / "in.parquet")
    checked = JobFile(tmp_path / "in.parquet", template=f"{{prompt}} {{{column}}}").check()
    assert checked.faults[0].fault == f'row 1: {column!r} is "2024-03-04", must be text or a number'


def test_fields_of_the_job_and_of_the_row(tmp_path):
    rows = '{"id":"a","prompt":"x"}\n{"id":"b","prompt":"y","more":{"seed":5,"canvas":{"steps":9}}}\n'
    fields = {"temperature": 0.5, "canvas": {"steps": 4, "canvas_length": 8}}
    file = JobFile(write(tmp_path, "in.jsonl", rows), body_column="more", fields=fields)
    first, second = (row.body for row in file.rows(3))
    assert first["canvas"] == {"steps": 4, "canvas_length": 8}
    assert second["canvas"] == {"steps": 9, "canvas_length": 8}
    assert second["seed"] == 5
    assert first["seed"] == next(file.rows(3)).body["seed"]
    assert first["seed"] != next(file.rows(4)).body["seed"]
    assert next(file.rows(3)).digest() != next(file.rows(4)).digest()


def test_a_file_that_changes_meanwhile(tmp_path):
    path = write(tmp_path, "in.txt", "one\ntwo\n")
    file = JobFile(path)
    file.check()
    path.write_text("one\nthree\n")
    with pytest.raises(ValueError, match="was changed while its rows were answered"):
        list(file.rows(0))


@pytest.mark.parametrize(
    "kind",
    [
        pyarrow.binary(),
        pyarrow.binary(2),
        pyarrow.list_(pyarrow.large_binary()),
        pyarrow.struct({"x": pyarrow.binary()}),
    ],
)
def test_a_column_of_bytes_is_refused_also_within_another(tmp_path, kind):
    schema = pyarrow.schema({"prompt": pyarrow.string(), "photo": kind})
    path = tmp_path / "in.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"prompt": "a", "photo": None}], schema), path)
    with pytest.raises(ValueError, match="the column 'photo' is binary, which is not text: leave it out"):
        JobFile(path, template="{prompt}").check()


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (datetime(2024, 3, 4, 5, 6), "2024-03-04T05:06:00"),
        (date(2024, 3, 4), "2024-03-04"),
        (time(5, 6), "05:06:00"),
        (timedelta(hours=3), "3:00:00"),
        (Decimal("1.50"), "1.50"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ([{"a": float("nan")}, (True, 2)], [{"a": None}, [True, 2]]),
    ],
)
def test_values_of_tables_as_json_has_them(value, wanted):
    assert json_value(value) == wanted


def test_a_value_that_json_has_nothing_for_is_refused():
    with pytest.raises(ValueError, match="of type bytes, which JSON has nothing for"):
        json_value({"x": [b"bytes"]})
