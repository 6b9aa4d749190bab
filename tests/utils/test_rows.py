"""Prompts from files of lines, JSON lines and CSV."""

import pytest

from redraft.utils.rows import Row, parse_template, read_prompts


@pytest.fixture
def file(tmp_path):
    def write(name: str, content: str | bytes):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def test_lines_are_prompts(file):
    assert read_prompts(file("a.txt", "one\r\n\n two {x} \n")) == [Row(1, "one"), Row(3, " two {x} ")]
    assert read_prompts(file("b.txt", "one"), template="Say {line}!") == [Row(1, "Say one!")]


def test_json_lines(file):
    path = file("a.jsonl", '{"prompt": "a\\nb", "n": 3}\n\n{"prompt": "c", "n": 2.5}\n')
    assert read_prompts(path) == [Row(1, "a\nb"), Row(3, "c")]
    assert read_prompts(path, template="{n}: {{{prompt}}}") == [Row(1, "3: {a\nb}"), Row(3, "2.5: {c}")]


def test_csv(file):
    path = file("a.csv", b'\xef\xbb\xbffirst name,prompt\r\nAna,"Hi, ""you""\nthere"\r\n\r\nBo,ok\r\n')
    assert read_prompts(path) == [Row(3, 'Hi, "you"\nthere'), Row(5, "ok")]
    assert read_prompts(path, template="From {first name}: {prompt}")[1] == Row(5, "From Bo: ok")
    assert read_prompts(path, format="text")[2] == Row(3, 'there"')


def test_lines_of_spaces_in_csv_are_blank_and_fields_may_be_long(file):
    long = "word " * 30_000
    path = file("a.csv", f'  \nprompt,n\n \t \n"{long}",1\n  \r\n"a\n\n  b",2\n   ')
    assert read_prompts(path) == [Row(4, long), Row(8, "a\n\n  b")]
    assert read_prompts(file("one.csv", "prompt\na\n  \nb\n")) == [Row(2, "a"), Row(4, "b")]


def test_an_ending_may_be_overruled(file):
    path = file("a.json", '{"prompt": "a"}\n')
    assert read_prompts(path, format="jsonl") == [Row(1, "a")]
    assert read_prompts(file("a.notes", "b\n")) == [Row(1, "b")]


def test_a_template_reads_columns_only():
    assert parse_template("{a.b}{c[0]}") == [("", "a.b"), ("", "c[0]")]
