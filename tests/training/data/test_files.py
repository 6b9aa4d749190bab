"""Training data as people have it: which rows files of all kinds make, and what is supervised."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from redraft.text import TextTokenizer
from redraft.training.data.dataset import read_data
from redraft.training.data.files import RowFormat, read_training_rows
from redraft.training.data.rows import hold_out
from redraft.utils.rows.formats import BadRow
from redraft.weights.checkpoint import Checkpoint
from redraft.weights.fetch import resolve
from tests.fakes.models import tiny_config
from tests.fakes.tokenizers import THINKING_TEMPLATE, save_checkpoint, thinking_tokenizer

CONFIG = Checkpoint.open(resolve("bundled")).config
USER, REPLY = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer.load(resolve("bundled"))


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def pairs(path: Path, **form: Any) -> list[tuple[str, str]]:
    rows = read_training_rows(path, RowFormat(**form))
    assert not any(isinstance(row, BadRow) for row in rows), rows
    return [(row.prompt, row.answer) for row in rows]


def test_the_same_rows_in_every_form(tmp_path):
    mails = [{"mail": 'a "quoted", mail', "team": "billing", "order": "A1"}, {"mail": "b\nc", "team": "x", "order": ""}]
    with (tmp_path / "mails.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(mails[0]))
        writer.writeheader()
        writer.writerows(mails)
    (tmp_path / "mails.csv.gz").write_bytes(gzip.compress((tmp_path / "mails.csv").read_bytes()))
    files = [tmp_path / "mails.csv", tmp_path / "mails.csv.gz", jsonl(tmp_path / "mails.jsonl", *mails)]
    expected = [(f"Route: {row['mail']}", json.dumps({k: row[k] for k in ("team", "order")})) for row in mails]
    for path in files:
        assert pairs(path, template="Route: {mail}", columns=("team", "order")) == expected
        assert pairs(path, template="{mail}", columns=("team",)) == [(row["mail"], row["team"]) for row in mails]
    plain = [{"prompt": "a", "completion": "b"}, {"prompt": "c", "answer": "d"}]
    assert pairs(jsonl(tmp_path / "plain.jsonl", *plain)) == [("a", "b"), ("c", "d")]
    trl = {"prompt": [USER], "completion": [REPLY]}
    assert pairs(jsonl(tmp_path / "trl.jsonl", trl)) == [("Hi", "Hello")]


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.Table.from_pylist([{"prompt": "a", "answer": "b"}, {"prompt": "c", "answer": "d"}])
    parquet.write_table(table, tmp_path / "rows.parquet")
    assert pairs(tmp_path / "rows.parquet") == [("a", "b"), ("c", "d")]
    parquet.write_table(pyarrow.table({"prompt": ["a", "b"], "answer": ["b", ""]}), tmp_path / "rows.parquet")
    _, bad = read_training_rows(tmp_path / "rows.parquet", RowFormat())
    assert isinstance(bad, BadRow)
    assert bad.fault.startswith("row 2: ")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ValueError, match="cannot be read as Parquet"):
        pairs(tmp_path / "bad.parquet")


def test_a_conversation_supervises_the_assistants_turns_and_no_header(tmp_path, tokenizer):
    """Of an OpenAI file: weight 0 leaves a turn out; what is supervised is the answer and the token that closes it."""
    system = {"role": "system", "content": "Be brief"}
    more = [USER, {"role": "assistant", "content": "No", "weight": 0}, USER, {"role": "assistant", "content": "Bye"}]
    path = jsonl(tmp_path / "chat.jsonl", {"messages": [system, USER, REPLY, *more]})
    read = read_data([path], tokenizer, CONFIG, form=RowFormat())
    assert [tokenizer.decode(example.answer, skip_special=False) for example in read.examples] == [
        "Hello<turn|>", "Bye<turn|>",
    ]  # fmt: skip
    for row, example in zip(read.rows, read.examples, strict=True):
        assert list(example.prompt) == tokenizer.encode_chat(row.messages)
    assert "Be brief" in tokenizer.decode(read.examples[1].prompt)
    last = read_data([path], tokenizer, CONFIG, form=RowFormat(turns="last"))
    assert [example.answer for example in last.examples] == [read.examples[1].answer]
    assert "⟦Hello<turn|>⟧" in read.rendered(tokenizer)


def test_the_turns_of_a_conversation_are_never_on_both_sides(tmp_path, tokenizer):
    talks = [
        {"messages": [{"role": "user", "content": f"Hi {i}"}, REPLY, USER, {"role": "assistant", "content": "Bye"}]}
        for i in range(40)
    ]
    trained, held_out = hold_out(read_training_rows(jsonl(tmp_path / "talks.jsonl", *talks), RowFormat()))
    assert len(trained) + len(held_out) == 80
    assert len(held_out) == 16
    assert not {row.line for row in trained} & {row.line for row in held_out}
    # Also where they come from another file.
    unseen = jsonl(tmp_path / "unseen.jsonl", talks[3])
    with pytest.raises(ValueError, match=r"talks\.jsonl has 1 prompt of .*unseen\.jsonl too"):
        read_data([tmp_path / "talks.jsonl"], tokenizer, CONFIG, form=RowFormat(), validation=unseen)


def test_a_row_is_text_where_prompt_and_answer_say_all_of_it(tmp_path):
    call = {"id": "1", "type": "function", "function": {"name": "find", "arguments": {}}}
    parts = {"role": "user", "content": [{"type": "text", "text": "Hi"}]}
    rows = [
        {"messages": [USER, REPLY]},
        {"messages": [{"role": "system", "content": "Be brief"}, USER, REPLY]},
        {"messages": [USER, {"role": "assistant", "tool_calls": [call]}]},
        {"messages": [USER, REPLY], "tools": [{"type": "function"}]},
        {"messages": [parts, REPLY]},
    ]
    read = read_training_rows(jsonl(tmp_path / "rows.jsonl", *rows), RowFormat())
    assert [row.is_text for row in read] == [True, True, False, False, False]


def test_tool_calls_are_supervised_as_the_template_writes_them(tmp_path):
    save_checkpoint(tmp_path, thinking_tokenizer(), chat_template=THINKING_TEMPLATE)
    tokenizer = TextTokenizer.load(tmp_path)
    call = {"id": "1", "type": "function", "function": {"name": "find", "arguments": {"city": "Porto"}}}
    reply = {"role": "assistant", "content": "", "tool_calls": [call]}
    path = jsonl(tmp_path / "calls.jsonl", {"messages": [USER, reply]})
    eos = tuple(tokenizer.token_id(name) for name in ("<turn|>", "<|tool_response>"))
    config = tiny_config(vocab_size=tokenizer.vocab_size, max_context=512, canvas_length=64, eos_ids=eos)
    (example,) = read_data([path], tokenizer, config, form=RowFormat()).examples
    assert tokenizer.decode(example.prompt, skip_special=False).endswith("<|turn>model\n<|channel>thought\n<channel|>")
    assert tokenizer.decode(example.answer, skip_special=False) == (
        '<|tool_call>call:find{city:<|"|>Porto<|"|>}<tool_call|><|tool_response>'
    )
    # Texts end with the token that closes their turn, though what asks for them goes on behind its header.
    jsonl(path, {"messages": [USER, REPLY]})
    (example,) = read_data([path], tokenizer, config, form=RowFormat()).examples
    assert tokenizer.decode(example.answer, skip_special=False) == "Hello<turn|>"


def test_what_a_user_should_know_is_told(tmp_path, tokenizer):
    rows = [{"prompt": f"p{i}", "answer": "x"} for i in range(4)]
    one = jsonl(tmp_path / "one.jsonl", *rows, rows[0], {"prompt": "p1", "answer": "other"})
    two = jsonl(tmp_path / "two.jsonl", {"prompt": "", "answer": "x"}, {"prompt": "q", "answer": "word " * 3000})
    with pytest.raises(ValueError, match=r"two\.jsonl, line 1: 'prompt' is empty, must be text"):
        read_data([one, two], tokenizer, CONFIG, form=RowFormat())
    read = read_data([one, two], tokenizer, CONFIG, form=RowFormat(), skip_bad=True, weights=(2.5, 1))
    told = "\n".join(read.describe(CONFIG.canvas_length))
    assert "6 rows" in told
    assert "2 rows dropped" in told
    assert f"1 prompt with answers that differ, as in {one}, line 2 and {one}, line 6" in told
    assert f"1 row more than once, as {one}, line 5" in told
    assert read.epoch_size == 15
    unseen = jsonl(tmp_path / "unseen.jsonl", rows[2])
    with pytest.raises(ValueError, match=r"has 1 prompt of .*unseen.jsonl too, for instance 'p2'"):
        read_data([one], tokenizer, CONFIG, form=RowFormat(), validation=unseen)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"prompt": "a"}, "no column 'answer'; there are 'prompt'"),
        ({"prompt": 7, "answer": True}, "'answer' is true, must be text or a number"),
        ({"messages": []}, "messages has no turn of the assistant"),
        ({"messages": [REPLY]}, "messages has no turn of the assistant behind another one"),
        ({"messages": "x"}, "messages must be a list of objects with a role"),
        ({"messages": [USER, {"role": "assistant", "content": " "}]}, "messages.1 of the assistant is empty"),
    ],
)
def test_bad_rows(tmp_path, content, message):
    (bad,) = read_training_rows(jsonl(tmp_path / "rows.jsonl", content), RowFormat())
    assert isinstance(bad, BadRow)
    assert bad.fault.startswith(f"line 1: {message}")


def test_bad_files(tmp_path, tokenizer):
    (tmp_path / "rows.txt").write_text("x")
    with pytest.raises(ValueError, match=r"rows.txt has none of the endings .csv, "):
        read_training_rows(tmp_path / "rows.txt", RowFormat())
    with pytest.raises(FileNotFoundError):
        read_training_rows(tmp_path / "nowhere", RowFormat())
    good = jsonl(tmp_path / "rows.jsonl", {"prompt": "a", "answer": "b"})
    with pytest.raises(ValueError, match="1 weight for 2 files: give each file one"):
        read_data([good, good], tokenizer, CONFIG, form=RowFormat(), weights=(1,))
    with pytest.raises(ValueError, match="a weight is 0, must be above 0"):
        read_data([good], tokenizer, CONFIG, form=RowFormat(), weights=(0,))
    with pytest.raises(ValueError, match=r"rows\.jsonl is named twice: name it once, with a weight of 2"):
        read_data([good, good], tokenizer, CONFIG, form=RowFormat(), weights=(1, 2))


def test_an_answer_that_is_nothing_but_its_end_is_refused(tmp_path, tokenizer):
    path = jsonl(tmp_path / "end.jsonl", {"messages": [USER, {"role": "assistant", "content": "", "name": "x"}]})
    with pytest.raises(ValueError, match=r"end\.jsonl, line 1: the answer is nothing but its end: leave the row out"):
        read_data([path], tokenizer, CONFIG, form=RowFormat())


def test_of_a_reply_that_the_template_writes_its_header_is_not_supervised(tmp_path, tokenizer):
    path = jsonl(tmp_path / "named.jsonl", {"messages": [USER, {**REPLY, "name": "x"}]})
    (example,) = read_data([path], tokenizer, CONFIG, form=RowFormat()).examples
    assert tokenizer.decode(example.answer, skip_special=False) == "Hello<turn|>"
