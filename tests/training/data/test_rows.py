"""A user's rows as examples: what is trained on is what generation reads and stops at."""

import dataclasses
import re
import shutil
from typing import Any

import pytest

import redraft
from redraft.evaluation.cases import Case, read_rows
from redraft.text import TextTokenizer
from redraft.training.data.examples import Example
from redraft.training.data.files import TrainingRow
from redraft.training.data.rows import (
    Replay,
    RowExamples,
    encode_rows,
    end_of_answer,
    hold_out,
    write_companions,
    write_rows,
)
from redraft.weights.card import read_card
from redraft.weights.checkpoint import Checkpoint
from redraft.weights.fetch import resolve
from redraft.weights.save import COMPANION_FILES

BUNDLED = resolve("bundled")
CONFIG = Checkpoint.open(BUNDLED).config


def row(prompt: str, answer: str, **changes: Any) -> TrainingRow:
    return TrainingRow(prompt, answer, file="rows.jsonl", **changes)


def encoded(rows: list[TrainingRow], tokenizer: TextTokenizer) -> list[Example]:
    found, faults = encode_rows(rows, tokenizer, CONFIG)
    assert not faults
    return [example for _, example in found]


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer.load(BUNDLED)


def test_an_example_is_what_generation_reads_and_where_it_stops(tokenizer):
    (example,) = encoded([row("Fix: teh", "the")], tokenizer)
    model = redraft.load("bundled")
    assert list(example.prompt) == model.encode("Fix: teh")
    assert tokenizer.decode(example.answer) == "the"
    assert example.answer[-1] in CONFIG.eos_ids
    assert example.answer[-1] == tokenizer.token_id("<turn|>")


def test_without_a_template_it_is_plain_text_after_bos(tmp_path):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(BUNDLED / name, tmp_path)
    plain = TextTokenizer.load(tmp_path)
    (example,) = encoded([row("ab", "cd")], plain)
    assert example == Example((CONFIG.bos_id, *plain.encode("ab")), (*plain.encode("cd"), plain.eos_id))


def test_a_row_beyond_the_context_is_named(tokenizer):
    small = dataclasses.replace(CONFIG, max_context=128)
    rows = [row("Fix: teh", "the", line=1), row("x", "word " * 40, line=7)]
    kept, (fault,) = encode_rows(rows, tokenizer, small)
    assert [one for one, _ in kept] == rows[:1]
    message = r"rows.jsonl, line 7: a prompt of .* tokens and an answer of 2 canvases of 64 exceed .* 128: shorten"
    assert re.match(message, fault)


def test_a_row_that_cannot_be_encoded_is_named(tokenizer):
    _, (fault,) = encode_rows([row("a \ud800", "b", line=3)], tokenizer, CONFIG)
    assert fault.startswith("rows.jsonl, line 3: the text holds the lone surrogate")


def test_a_tokenizer_whose_answers_do_not_end_where_the_model_stops_is_refused(tokenizer):
    other = dataclasses.replace(CONFIG, eos_ids=(9,))
    with pytest.raises(
        ValueError, match=r"end with token None, but the model stops at \[9\]: they belong to different"
    ):
        end_of_answer(tokenizer, other)


def test_every_epoch_has_each_row_once_in_its_own_order():
    examples = [Example((index,), (1,)) for index in range(10)]
    places = [f"line {line}" for line in range(100, 110)]
    source = RowExamples(examples, places, batch_size=4, seed=0)
    read = [example for step in range(10) for example in source(step)]
    epochs = [read[at : at + 10] for at in range(0, 40, 10)]
    for epoch in epochs:
        assert sorted(epoch, key=lambda example: example.prompt) == examples
    assert len({tuple(epoch) for epoch in epochs}) == 4
    # A resumed run reads what it would have read.
    resumed = RowExamples(examples, places, batch_size=4, seed=0)
    assert resumed(7) == read[28:32]
    lines = ", ".join(f"line {100 + example.prompt[0]}" for example in read[28:32])
    assert resumed.describe(7) == f"the rows of {lines}"


@pytest.mark.parametrize(("count", "kept"), [(1, 0), (19, 0), (20, 4), (30, 6), (200, 10), (1000, 50), (100_000, 128)])
def test_rows_that_are_held_out_are_not_trained_on(count, kept):
    cases = [row(str(index), "x") for index in range(count)]
    trained, held_out = hold_out(cases)
    assert len(held_out) == kept
    assert sorted(trained + held_out, key=lambda case: int(case.prompt)) == cases
    assert hold_out(cases) == (trained, held_out)


def test_the_same_prompt_is_never_on_both_sides():
    cases = [row(str(index % 40), str(index)) for index in range(400)]
    trained, held_out = hold_out(cases)
    assert len(held_out) == 80
    assert not {case.prompt for case in trained} & {case.prompt for case in held_out}


def test_rows_are_written_as_they_are_read(tmp_path):
    cases = [Case("a\nb", "ü", line=1), Case("c", '"d"', line=2)]
    write_rows(tmp_path / "rows.jsonl", cases)
    assert read_rows(tmp_path / "rows.jsonl") == cases


def test_replayed_examples_are_a_share_of_all_steps_together():
    rows = [Example((index,), (1,)) for index in range(10)]
    replay = Replay(0.3, lambda step: [Example((100 + step,), (1,))] * 2)
    source = RowExamples(rows, [str(row) for row in range(10)], batch_size=4, seed=0, replay=replay)
    plain = RowExamples(rows, [str(row) for row in range(10)], batch_size=4, seed=0)
    steps = [source(step) for step in range(10)]
    assert [len(step) for step in steps] == [4] * 10
    replayed = [[example for example in step if example.prompt[0] >= 100] for step in steps]
    assert [len(step) for step in replayed] == [1, 1, 1, 1, 2, 1, 1, 1, 1, 2]
    assert all(example.prompt == (100 + step,) for step in range(10) for example in replayed[step])
    # The rows come in the order that they have by themselves, and a resumed run reads what it would have read.
    read = [example for step in steps for example in step if example.prompt[0] < 100]
    assert read == [example for step in range(7) for example in plain(step)]
    again = RowExamples(rows, [str(row) for row in range(10)], batch_size=4, seed=0, replay=replay)
    assert again(4) == steps[4]
    assert source.describe(4).endswith(" and 2 replayed")


def test_checkpoints_get_the_tokenizers_files_and_a_card_of_their_own(tmp_path):
    (tmp_path / "chat_template.jinja").write_text("of another checkpoint")
    write_companions(BUNDLED, tmp_path, "fine-tuned", [Case("short", "x"), Case("long " * 200, "y")])
    assert (tmp_path / "chat_template.jinja").read_bytes() == (BUNDLED / "chat_template.jinja").read_bytes()
    assert (tmp_path / "tokenizer.json").read_bytes() == (BUNDLED / "tokenizer.json").read_bytes()
    card = read_card(tmp_path)
    assert (card.purpose, card.examples, card.single_turn) == ("fine-tuned", ("short",), True)
    (tmp_path / "of").mkdir()
    write_companions(tmp_path / "of", tmp_path, "fine-tuned", [])
    assert not (tmp_path / "chat_template.jinja").exists()
    assert not list(tmp_path.glob(".*"))


def test_a_fine_tuned_checkpoint_has_the_companions_that_a_saved_one_has(tmp_path):
    for name in COMPANION_FILES:
        (tmp_path / name).write_text(name)
    write_companions(tmp_path, tmp_path / "run", "fine-tuned", [])
    assert {path.name for path in (tmp_path / "run").iterdir()} == set(COMPANION_FILES)
    assert (tmp_path / "run" / "special_tokens_map.json").read_text() == "special_tokens_map.json"
    assert (tmp_path / "run" / "tokenizer.model").read_text() == "tokenizer.model"
    assert read_card(tmp_path / "run").purpose == "fine-tuned"
