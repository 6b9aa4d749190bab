"""Rows from files of lines, JSON lines and tables: what is read, what is told, what is skipped."""

import gzip
import io
import json
import os
import re
import threading

import pytest

from redraft.utils.rows.formats import BadRow
from redraft.utils.rows.reading import Row, RowFile
from redraft.utils.rows.template import parse_template


def read(path, **options) -> list[tuple[int, str]]:
    """Checks a file and returns the line and the prompt of each of its rows."""
    rows = RowFile(path, **options)
    rows.check(unique_ids=False)
    return [(row.line, row.prompt) for row in rows]


def test_lines_are_prompts(file):
    assert read(file("a.txt", "one\r\n\n two {x} \n")) == [(1, "one"), (3, " two {x} ")]
    assert read(file("b.txt", "one"), template="Say {line}!") == [(1, "Say one!")]
    assert list(RowFile(file("c.txt", "\ufeffone"))) == [Row(1, "one")]


def test_json_lines(file):
    path = file("a.jsonl", '{"prompt": "a\\nb", "n": 3}\n\n{"prompt": "c", "n": 2.5}\n')
    assert read(path) == [(1, "a\nb"), (3, "c")]
    assert read(path, template="{n}: {{{prompt}}}") == [(1, "3: {a\nb}"), (3, "2.5: {c}")]


def test_csv(file):
    path = file("a.csv", b'\xef\xbb\xbffirst name,prompt\r\nAna,"Hi, ""you""\nthere"\r\n\r\nBo,ok\r\n')
    assert read(path) == [(3, 'Hi, "you"\nthere'), (5, "ok")]
    assert read(path, template="From {first name}: {prompt}")[1] == (5, "From Bo: ok")
    assert read(path, format="text")[2] == (3, 'there"')


def test_lines_of_spaces_in_csv_are_blank_and_fields_may_be_long(file):
    long = "word " * 30_000
    path = file("a.csv", f'  \nprompt,n\n \t \n"{long}",1\n  \r\n"a\n\n  b",2\n   ')
    assert read(path) == [(4, long), (8, "a\n\n  b")]
    assert read(file("one.csv", "prompt\na\n  \nb\n")) == [(2, "a"), (4, "b")]
    assert read(file("mac.csv", "prompt,n\ra,1\rb,2")) == [(2, "a"), (3, "b")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", 'name;amount\n"Ana; B";42,50\n'),
        ("a.csv", '\n"name";"amount"\r\n"Ana; B";42,50'),
        ("a.csv", "name\tamount\nAna; B\t42,50\n"),
        ("a.csv", "name|amount\nAna; B|42,50\n"),
        ("a.csv", "sep=|\r\nname|amount\r\nAna; B|42,50\r\n"),
        ("a.csv", '\ufeff"sep=,"\nname,amount\nAna; B,"42,50"\n'),
        ("a.csv", "SEP=\t\nname\tamount\nAna; B\t42,50\n"),
        ("a.tsv", "name\tamount\nAna; B\t42,50\n"),
        ("a.TSV", "\ufeffname\tamount\r\n\r\nAna; B\t42,50"),
    ],
)
def test_a_table_may_have_other_separators(file, name, content):
    assert [row.columns for row in RowFile(file(name, content), template="{name}")] == [
        {"name": "Ana; B", "amount": "42,50"}
    ]


def test_a_line_that_names_the_separator_is_counted(file):
    assert read(file("a.csv", "sep=;\na,b;c\n1;x\n"), template="{c}") == [(3, "x")]


def test_a_comma_in_the_header_is_the_separator(file):
    assert read(file("a.csv", 'a,b;c\n1,"x; y"\n'), template="{b;c}") == [(2, "x; y")]
    with pytest.raises(
        ValueError, match=r"line 2 has 3 fields, .* 2: field 3, '3', has no column; put a field that .* a semi"
    ):
        RowFile(file("b.csv", "a;b\n1;2;3\n"), template="{a}").check()
    with pytest.raises(ValueError, match=r"field 3, 'x{40}\.\.\.', has no column"):
        RowFile(file("b.csv", f"a;b\n1;2;{'x' * 41}\n"), template="{a}").check()


def test_a_table_of_tabs_that_has_none_says_what_it_may_be(file):
    told = "line 1: tabs separate no columns here, but the header has a semicolon: call it .csv, or name the format csv"
    with pytest.raises(ValueError, match=re.escape(told)):
        RowFile(file("a.tsv", "id;prompt\n1;x\n")).check()
    assert read(file("b.tsv", "prompt\nx; y\n")) == [(2, "x; y")]
    assert read(file("c.tsv", "id;prompt\n1;x\n"), format="csv") == [(2, "x")]


@pytest.mark.parametrize("name", ["a.csv.gz", "A.CSV.GZ"])
def test_gzip_is_unpacked(file, name):
    path = file(name, gzip.compress(b"prompt,n\nhello,1\n", mtime=0))
    assert list(RowFile(path)) == [Row(2, "hello", {"prompt": "hello", "n": "1"})]


def test_a_stream_and_a_pipe_are_read_again_and_again(tmp_path):
    stream = io.BytesIO(b'{"prompt": "a", "id": 7}\n{"prompt": "b"}')
    rows = RowFile(tmp_path / "-", format="jsonl", stream=stream)
    assert rows.name == "standard input"
    assert rows.check().good == 2
    assert (
        list(rows)
        == list(rows)
        == [
            Row(1, "a", {"prompt": "a", "id": 7}, 7),
            Row(2, "b", {"prompt": "b"}),
        ]
    )
    os.mkfifo(tmp_path / "pipe.csv")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe.csv").write_text("prompt\nhello\n"))
    writer.start()
    assert read(tmp_path / "pipe.csv") == [(2, "hello")]
    writer.join()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv",
            gzip.compress(b"prompt\nx\n", mtime=0),
            r"a.csv is compressed with gzip: give its name the ending .gz",
        ),
        ("a.csv", "prompt\nx\n".encode("utf-16"), r"a.csv is UTF-16: save it as UTF-8"),
        ("a.csv", "prompt\nx\n".encode("utf-16-be"), r"a.csv has zero bytes like UTF-16: save it as UTF-8"),
        ("a.csv", b"PK\x03\x04\x14\x00", r"a.csv is a ZIP archive, as spreadsheets \(.xlsx\) are: save it as CSV"),
        ("a.csv.gz", b"prompt\nx\n", r"a.csv.gz cannot be unpacked as gzip: Not a gzipped file"),
        ("a.csv.gz", gzip.compress(b"prompt\nx\n", mtime=0)[:-9], r"a.csv.gz is cut off: its gzip data have no end"),
        (
            "a.csv.gz",
            gzip.compress(b"prompt\nx\n", mtime=0)[:-8] + b"\0" * 8,
            r"a.csv.gz cannot be unpacked as gzip: CRC",
        ),
        ("a.json.gz", b"", r"a.json.gz does not look like lines of text: save it as CSV"),
        ("a.csv", "", "a.csv has no rows"),
        ("a.csv", "\n \n", "a.csv has no rows"),
        ("a.csv", 'prompt,n\n1,"a ""b"" c"d\n', r"a.csv, line 2 is not CSV: ',' expected after '\"', at column 14"),
        ("a.csv", 'prompt\na"b\n"c" d\n', r"a.csv, line 3 is not CSV: ',' expected after '\"', at column 4"),
    ],
)
def test_what_is_something_else_is_explained(file, name, content, message):
    with pytest.raises(ValueError, match=message):
        RowFile(file(name, content)).check()


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e400", '["x", {"y": -1e999}]'])
def test_numbers_that_json_cannot_hold_are_refused_with_line_and_column(file, number):
    path = file("a.jsonl", f'{{"prompt": "x", "n": 1}}\n{{"prompt": "x", "n": {number}}}\n')
    with pytest.raises(ValueError, match=r"a.jsonl, line 2: 'n' holds NaN, Infinity or a number beyond 1.8e308"):
        RowFile(path).check()


def test_numbers_are_written_as_json_writes_them(file):
    path = file("a.jsonl", '{"n": 1e300}\n{"n": 12345678901234567890}\n{"n": -0.5}\n')
    assert [prompt for _, prompt in read(path, template="{n}")] == ["1e+300", "12345678901234567890", "-0.5"]


def test_bad_rows_are_kept_apart(file):
    path = file(
        "a.jsonl", b'{"prompt": "a", "id": 1}\n{"prompt"\n{"prompt": "", "id": 3}\n\xff\n{"id": 5, "prompt": "e"}'
    )
    assert [row.line for row in RowFile(path) if isinstance(row, Row)] == [1, 5]
    assert [row for row in RowFile(path) if isinstance(row, BadRow)] == [
        BadRow(2, "line 2 is not JSON: Expecting ':' delimiter at character 11"),
        BadRow(3, "line 3: the prompt is empty", {"prompt": "", "id": 3}, 3),
        BadRow(
            4,
            "line 4: byte 0xff at column 1 is not UTF-8: save the file as UTF-8 (iconv -f WINDOWS-1252 -t UTF-8)",
        ),
    ]
    checked = RowFile(path).check(skip_bad=True)
    assert (checked.good, checked.bad, checked.columns) == (2, 3, ("prompt", "id"))
    with pytest.raises(ValueError, match=r"a.jsonl, line 2 is not JSON"):
        RowFile(path).check()
    with pytest.raises(ValueError, match=r"b.txt has bad rows only: line 1: byte 0xff at column 1 is not UTF-8"):
        RowFile(file("b.txt", b"\xff\n")).check(skip_bad=True)


def test_an_open_quotation_mark_loses_its_own_line_alone(file):
    rows = list(RowFile(file("a.csv", 'prompt,n\na,1\n"b,2\n"c",3\nd,4\n"e,5\nf,6\n')))
    assert [row.line for row in rows if isinstance(row, Row)] == [2, 4, 5, 7]
    first, second = [row for row in rows if isinstance(row, BadRow)]
    assert first.fault == "line 3 is not CSV: ',' expected after '\"', at column 1; a quotation mark is not closed"
    assert second.fault == "line 6 is not CSV: unexpected end of data, at column 1; a quotation mark is not closed"


def test_ids(file):
    path = file("a.csv", "id,key,prompt\n1,x,a\n2,y,b\n1,z,c\n")
    with pytest.raises(ValueError, match=r"a.csv, lines 2 and 4 have the same id '1': make ids unique"):
        RowFile(path).check()
    assert RowFile(path).check(unique_ids=False).good == 3
    assert RowFile(path, id_column="line").check().good == 3
    assert [row.id for row in RowFile(path, id_column="key")] == ["x", "y", "z"]
    with pytest.raises(ValueError, match=r"line 2: no column 'no'; there are 'id', 'key', 'prompt'"):
        RowFile(path, id_column="no").check()
    path = file("b.jsonl", '{"prompt": "a", "key": 1}\n{"prompt": "b", "key": null}\n')
    with pytest.raises(ValueError, match=r"line 2: 'key' is null, must be text or a number"):
        RowFile(path, id_column="key").check()
    with pytest.raises(ValueError, match=r"line 2: the id is empty: the column 'key' must have one"):
        RowFile(file("c.csv", "prompt,key\na, \n"), id_column="key").check()
    assert [row.id for row in RowFile(path)] == [None, None]


def test_a_file_that_changes_meanwhile_is_noticed(file):
    rows = RowFile(file("a.txt", "one\ntwo\n"))
    rows.check()
    file("a.txt", "one\nthree\n")
    with pytest.raises(ValueError, match=r"a.txt was changed while its rows were answered"):
        list(rows)


def test_an_ending_may_be_overruled(file):
    path = file("a.json", '{"prompt": "a"}\n')
    assert read(path, format="jsonl") == [(1, "a")]
    assert read(file("a.notes", "b\n")) == [(1, "b")]


def test_a_template_reads_columns_only():
    assert parse_template("{a.b}{c[0]}") == [("", "a.b"), ("", "c[0]")]


def test_checking_keeps_no_rows(file):
    """A file may be larger than the memory: only ids are kept, and of bad rows the first."""
    path = file("a.jsonl", "".join(json.dumps({"prompt": "x" * 1000}) + "\n" for _ in range(300)) + "{\n" * 9)
    checked = RowFile(path).check(skip_bad=True)
    assert (checked.good, checked.bad, len(checked.first_bad)) == (300, 9, 3)
