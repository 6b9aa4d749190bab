"""What the live canvas leaves behind: the answer as it is, whatever the terminal's width."""

import io

import pytest
from rich.console import Console

from redraft import Committed, Generation, Result
from redraft.cli.answers.live import CanvasView, show
from tests.fakes.tokenizers import gemma_tokenizer


@pytest.mark.parametrize("text", ['{"host": "fe80:a:1", "state": "x:on:y"}', "[bold]no markup[/bold]", "word " * 60])
def test_the_finished_text_is_printed_as_it_is(capsys, monkeypatch, text):
    monkeypatch.setenv("COLUMNS", "30")
    generation = Generation((1,), "stop", 1, (2,), 1.0, 0.1, 0.1, 0.1, ((1,),))
    show(iter([Result(text, generation, "tiny")]), gemma_tokenizer())
    assert text in capsys.readouterr().out


def test_a_conversation_is_wrapped_between_words(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    text = "Denoising resolves every token of a canvas in parallel, again and again.\n" + "x" * 40
    generation = Generation((1,), "stop", 1, (2,), 1.0, 0.1, 0.1, 0.1, ((1,),))
    show(iter([Result(text, generation, "tiny")]), gemma_tokenizer(), is_wrapped=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["Denoising resolves every token", "of a canvas in parallel, again", "and again."]
    # Only what is longer than a line is broken.
    assert lines[3:5] == ["x" * 30, "x" * 10]


def test_drafts_are_wrapped_between_words():
    console = Console(width=30, file=io.StringIO(), highlight=False)
    view = CanvasView(gemma_tokenizer())
    view.update(Committed("Denoising resolves every token of a canvas in parallel, again and again."))
    console.print(view)
    lines = console.file.getvalue().splitlines()
    assert lines[:3] == ["Denoising resolves every token", "of a canvas in parallel, again", "and again."]
