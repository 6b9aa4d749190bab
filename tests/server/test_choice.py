"""From the engine's events to pieces of an answer: stop texts, thoughts, tool calls, log-probabilities."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from redraft.diffusion.settings import SamplerSettings
from redraft.engine import Admitted, CanvasCommitted, Failed, Finished, Request
from redraft.generation import Generation
from redraft.model import TopTokens
from redraft.server.choice import DELTA_TOKENS, Choice, Delta, Ended, StopCutter
from redraft.text import Content, Reasoning, TextTokenizer, ToolCall
from tests.fakes.tokenizers import NAMED_TOKENS, byte_level_tokenizer, thinking_tokenizer

REQUEST = Request(id="r", prompt=(1,), settings=SamplerSettings(seed=1))


@pytest.fixture(scope="module")
def within():
    tokenizer = TextTokenizer(thinking_tokenizer(byte_level_tokenizer), named_tokens=NAMED_TOKENS)
    config = SimpleNamespace(eos_ids=(1,))
    return SimpleNamespace(model=SimpleNamespace(tokenizer=tokenizer, transformer=SimpleNamespace(config=config)))


def generation(reason: str) -> Generation:
    return Generation((), reason, 1, (), 1.0, 0.0, 0.0, 0.0, ())


def told(within, text: str, *, stops=(), top=None, finish="stop", canvas=16, scores=None) -> tuple[list, Choice]:
    """What is told of an answer that is written so, control tokens spelled out, a canvas at a time."""
    choice = Choice(within, REQUEST, stops, top)
    ids = raw_ids(within, text)
    happened = list(choice.take(Admitted("r", 1.0, 3)))
    for at in range(0, len(ids), canvas):
        part = ids[at : at + canvas]
        happened += choice.take(CanvasCommitted("r", tuple(part), 2, None if scores is None else scores(part)))
    happened += choice.take(Finished("r", generation(finish)))
    return happened, choice


def raw_ids(within, text: str) -> list[int]:
    raw = within.model.tokenizer._tokenizer
    raw.encode_special_tokens = False
    try:
        return raw.encode(text, add_special_tokens=False).ids
    finally:
        raw.encode_special_tokens = True


def joined(happened, kind) -> str:
    return "".join(one.part.text for one in happened if isinstance(one, Delta) and isinstance(one.part, kind))


def test_plain_text_comes_in_pieces_of_a_canvas(within):
    text = "the quick brown fox jumps over the lazy dog and the dog sleeps on"
    happened, choice = told(within, text)
    assert joined(happened, Content) == text
    assert happened[-1] == Ended("stop")
    count = len(raw_ids(within, text))
    assert len(happened) - 1 >= count / DELTA_TOKENS
    assert (choice.counted.tokens, choice.counted.written, choice.counted.cached) == (count, count + 1, 3)
    assert choice.counted.steps == [2] * -(-count // 16)


def test_thoughts_and_tool_calls_are_told_apart_and_end_as_such(within):
    text = (
        "<|channel>thought\nthe user says hello<channel|>naïve café"
        '<|tool_call>call:find{city:<|"|>Porto "}<|"|>,count:3}<tool_call|>'
    )
    happened, _ = told(within, text)
    assert joined(happened, Reasoning) == "the user says hello"
    assert joined(happened, Content) == "naïve café"
    calls = [one.part for one in happened if isinstance(one, Delta) and isinstance(one.part, ToolCall)]
    assert calls == [ToolCall("find", '{"city":"Porto \\"}","count":3}')]
    assert happened[-1] == Ended("tool_calls")


def test_a_call_that_was_cut_off_ends_for_its_length(within):
    happened, _ = told(within, '<|tool_call>call:find{city:<|"|>Por', finish="length")
    assert happened[-1] == Ended("length")
    assert joined(happened, Content) == ""


def test_a_stop_text_ends_the_content_before_it_and_what_follows_is_not_told(within):
    text = "the quick brown fox jumps over the lazy dog"
    happened, choice = told(within, text, stops=("jumps over", "dog"), canvas=64)
    assert joined(happened, Content) == "the quick brown fox "
    assert happened[-1] == Ended("stop")
    assert [one for one in happened if isinstance(one, Ended)] == [Ended("stop")]
    assert choice.counted.tokens < len(raw_ids(within, text))


def test_a_stop_text_is_not_looked_for_in_thoughts(within):
    happened, _ = told(within, "<|channel>thought\nsay dog here<channel|>no dog", stops=("dog",))
    assert joined(happened, Reasoning) == "say dog here"
    assert joined(happened, Content) == "no "


def test_each_token_has_its_log_probability_once(within):
    def scores(ids):
        return TopTokens(torch.tensor([[token, 5] for token in ids]), torch.tensor([[-0.5, -2.0]] * len(ids)))

    text = "héllo wörld, ça va? naïve café"
    happened, _ = told(within, text, top=2, scores=scores)
    tokens = [token for one in happened if isinstance(one, Delta) for token in one.tokens]
    assert [token.id for token in tokens] == raw_ids(within, text)
    assert {(token.log_prob, token.top[1]) for token in tokens} == {(-0.5, (5, -2.0))}
    without, _ = told(within, text, top=None, scores=scores)
    assert not any(one.tokens for one in without if isinstance(one, Delta))


def test_text_that_was_held_back_stands_before_what_follows_it(within):
    happened, _ = told(within, "the dog<|tool_call>call:find{}<tool_call|>", stops=("dogs",))
    parts = [one.part for one in happened if isinstance(one, Delta)]
    assert isinstance(parts[-1], ToolCall)
    assert "".join(part.text for part in parts[:-1]) == "the dog"


def test_nothing_is_told_behind_a_stop_text(within):
    happened, _ = told(within, "the dog<|tool_call>call:find{}<tool_call|>", stops=("dog",), finish="length")
    assert joined(happened, Content) == "the "
    assert [one for one in happened if not isinstance(one, Delta)] == [Ended("stop")]
    assert not any(isinstance(one.part, ToolCall) for one in happened if isinstance(one, Delta))


def test_a_stop_text_that_the_very_end_completes(within):
    happened, _ = told(within, "naïve café", stops=("é",), finish="length")
    assert joined(happened, Content) == "naïve caf"
    assert happened[-1] == Ended("stop")


def test_tokens_behind_a_stop_text_are_not_scored_and_those_without_text_are(within):
    def scores(ids):
        return TopTokens(torch.tensor([[token] for token in ids]), torch.tensor([[-0.5]] * len(ids)))

    def tokens(happened) -> list[int]:
        return [token.id for one in happened if isinstance(one, Delta) for token in one.tokens]

    happened, _ = told(within, "the quick brown fox", stops=("brown",), top=0, scores=scores)
    # The token in which the stop text begins brings the space before it; the next one brings nothing.
    assert len(tokens(happened)) == 3
    assert len(raw_ids(within, "the quick brown")) > 3
    text = "hello<|channel>thought\n<channel|>"
    happened, choice = told(within, text, top=0, scores=scores)
    assert tokens(happened) == raw_ids(within, text)
    assert len(tokens(happened)) == choice.counted.tokens


def test_a_call_that_cannot_be_read_is_no_reason_to_wait_for_its_answer(within):
    happened, _ = told(within, "<|tool_call>nonsense<tool_call|>")
    assert happened[-1] == Ended("stop")


def test_the_engines_failure_is_raised(within):
    with pytest.raises(RuntimeError, match="broken"):
        list(Choice(within, REQUEST, (), None).take(Failed("r", RuntimeError("broken"))))


@given(
    text=st.text(alphabet="abc", max_size=30),
    stops=st.lists(st.text(alphabet="abc", min_size=1, max_size=4), max_size=3),
    cuts=st.lists(st.integers(0, 30), max_size=6),
)
def test_stop_texts_are_found_however_the_text_is_cut(text, stops, cuts):
    cutter = StopCutter(stops)
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    out = "".join(cutter.push(text[a:b]) for a, b in itertools.pairwise(edges))
    found = cutter.found
    out += cutter.finish()
    # Character by character, the earliest end decides and then the earliest beginning.
    expected = text
    for end in range(len(text) + 1):
        if begun := [end - len(stop) for stop in stops if text[:end].endswith(stop)]:
            expected = text[: min(begun)]
            break
    if found or expected != text:
        assert found
        assert text.startswith(out)
        assert not any(stop in out for stop in stops)
    else:
        assert out == text


@given(st.text(alphabet="ab", max_size=20), st.text(alphabet="ab", min_size=1, max_size=5))
def test_no_more_is_held_back_than_may_become_a_stop_text(text, stop):
    cutter = StopCutter([stop])
    out = "".join(cutter.push(character) for character in text)
    if not cutter.found:
        held = text[len(out) :]
        assert stop.startswith(held)
        assert len(held) < len(stop)
