"""What the live canvas leaves behind: the answer as it is, whatever the terminal's width."""

import pytest

from redraft import Generation, Result
from redraft.cli.answers.live import show
from tests.fakes.tokenizers import gemma_tokenizer


@pytest.mark.parametrize("text", ['{"host": "fe80:a:1", "state": "x:on:y"}', "[bold]no markup[/bold]", "word " * 60])
def test_the_finished_text_is_printed_as_it_is(capsys, monkeypatch, text):
    monkeypatch.setenv("COLUMNS", "30")
    generation = Generation((1,), "stop", 1, (2,), 1.0, 0.1, 0.1, 0.1, ((1,),))
    show(iter([Result(text, generation, "tiny")]), gemma_tokenizer())
    assert text in capsys.readouterr().out
