"""From the tokens of an answer to its parts: drafts, stop texts, thoughts, tool calls, log-probabilities, the end."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redraft.text import (
    AnswerStream,
    Content,
    Delta,
    End,
    Reasoning,
    ScoredToken,
    TextTokenizer,
    ToolCall,
)
from redraft.text.answer import StopCutter
from tests.fakes.tokenizers import NAMED_TOKENS, byte_level_tokenizer, spelled_ids, thinking_tokenizer

EOS = 1
DELTA_TOKENS = 8


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer(thinking_tokenizer(byte_level_tokenizer), named_tokens=NAMED_TOKENS)


def read(tokenizer, text: str, *, stops=(), finish="stop", canvas=16, scored=None) -> tuple[list, AnswerStream]:
    """Everything that a stream yields for a text, control tokens spelled out, that is committed a canvas at a time."""
    stream = AnswerStream(
        tokenizer, stop_ids=(EOS,), max_tokens=1000, stop_texts=stops, parses_parts=True, delta_tokens=DELTA_TOKENS
    )
    ids = spelled_ids(tokenizer, text)
    events = []
    for at in range(0, len(ids), canvas):
        part = ids[at : at + canvas]
        events += stream.commit(part, [] if scored is None else [scored(token) for token in part])
    events += stream.finish(finish)
    return events, stream


def with_score(token: int) -> ScoredToken:
    return ScoredToken(token, -0.5, ((token, -0.5), (5, -2.0)))


def joined(events, kind) -> str:
    return "".join(event.part.text for event in events if isinstance(event, Delta) and isinstance(event.part, kind))


def test_plain_text_comes_in_pieces_of_a_canvas(tokenizer):
    text = "the quick brown fox jumps over the lazy dog and the dog sleeps on"
    events, stream = read(tokenizer, text)
    assert joined(events, Content) == text
    assert events[-1] == End("stop")
    count = len(spelled_ids(tokenizer, text))
    assert len(events) - 1 >= count / DELTA_TOKENS
    assert stream.num_tokens == count


def test_thoughts_and_tool_calls_are_told_apart_and_end_as_such(tokenizer):
    text = (
        "<|channel>thought\nthe user says hello<channel|>naïve café"
        '<|tool_call>call:find{city:<|"|>Porto "}<|"|>,count:3}<tool_call|>'
    )
    events, _ = read(tokenizer, text)
    assert joined(events, Reasoning) == "the user says hello"
    assert joined(events, Content) == "naïve café"
    calls = [event.part for event in events if isinstance(event, Delta) and isinstance(event.part, ToolCall)]
    assert calls == [ToolCall("find", '{"city":"Porto \\"}","count":3}')]
    assert events[-1] == End("tool_calls")


def test_a_call_that_was_cut_off_ends_for_its_length(tokenizer):
    events, _ = read(tokenizer, '<|tool_call>call:find{city:<|"|>Por', finish="length")
    assert events[-1] == End("length")
    assert joined(events, Content) == ""


def test_a_stop_text_ends_the_content_before_it_and_what_follows_is_not_told(tokenizer):
    text = "the quick brown fox jumps over the lazy dog"
    events, stream = read(tokenizer, text, stops=("jumps over", "dog"), canvas=64)
    assert joined(events, Content) == "the quick brown fox "
    assert events[-1] == End("stop")
    assert [event for event in events if isinstance(event, End)] == [End("stop")]
    assert stream.num_tokens < len(spelled_ids(tokenizer, text))


def test_a_stop_text_is_not_looked_for_in_thoughts(tokenizer):
    events, _ = read(tokenizer, "<|channel>thought\nsay dog here<channel|>no dog", stops=("dog",))
    assert joined(events, Reasoning) == "say dog here"
    assert joined(events, Content) == "no "


def test_each_token_has_its_log_probability_once(tokenizer):
    text = "héllo wörld, ça va? naïve café"
    events, _ = read(tokenizer, text, scored=with_score)
    tokens = [token for event in events if isinstance(event, Delta) for token in event.tokens]
    assert [token.id for token in tokens] == spelled_ids(tokenizer, text)
    assert {(token.log_prob, token.top[1]) for token in tokens} == {(-0.5, (5, -2.0))}
    without, _ = read(tokenizer, text)
    assert not any(event.tokens for event in without if isinstance(event, Delta))


def test_text_that_was_held_back_stands_before_what_follows_it(tokenizer):
    events, _ = read(tokenizer, "the dog<|tool_call>call:find{}<tool_call|>", stops=("dogs",))
    parts = [event.part for event in events if isinstance(event, Delta)]
    assert isinstance(parts[-1], ToolCall)
    assert "".join(part.text for part in parts[:-1]) == "the dog"


def test_nothing_is_told_behind_a_stop_text(tokenizer):
    events, _ = read(tokenizer, "the dog<|tool_call>call:find{}<tool_call|>", stops=("dog",), finish="length")
    assert joined(events, Content) == "the "
    assert [event for event in events if not isinstance(event, Delta)] == [End("stop")]
    assert not any(isinstance(event.part, ToolCall) for event in events if isinstance(event, Delta))


def test_a_stop_text_that_the_very_end_completes(tokenizer):
    events, _ = read(tokenizer, "naïve café", stops=("é",), finish="length")
    assert joined(events, Content) == "naïve caf"
    assert events[-1] == End("stop")


def test_tokens_behind_a_stop_text_are_not_scored_and_those_without_text_are(tokenizer):
    def tokens(events) -> list[int]:
        return [token.id for event in events if isinstance(event, Delta) for token in event.tokens]

    events, _ = read(tokenizer, "the quick brown fox", stops=("brown",), scored=with_score)
    # The token in which the stop text begins brings the space before it; the next one brings nothing.
    assert len(tokens(events)) == 3
    assert len(spelled_ids(tokenizer, "the quick brown")) > 3
    text = "hello<|channel>thought\n<channel|>"
    events, stream = read(tokenizer, text, scored=with_score)
    assert tokens(events) == spelled_ids(tokenizer, text)
    assert len(tokens(events)) == stream.num_tokens


def test_a_call_that_cannot_be_read_is_no_reason_to_wait_for_its_answer(tokenizer):
    events, _ = read(tokenizer, "<|tool_call>nonsense<tool_call|>")
    assert events[-1] == End("stop")


def test_a_draft_ends_where_its_canvas_would(tokenizer):
    ids = spelled_ids(tokenizer, "the quick brown fox")
    canvas = [*ids[:2], EOS, *ids[2:]]
    ending = AnswerStream(tokenizer, stop_ids=(EOS,), max_tokens=1000)
    assert ending.draft(canvas) == tokenizer.decode(ids[:2])
    going_on = AnswerStream(tokenizer, stop_ids=(), max_tokens=1000)
    assert going_on.draft(canvas) == "the quick brown fox"
    short = AnswerStream(tokenizer, stop_ids=(), max_tokens=len(ids) + 1)
    list(short.commit(ids))
    assert short.draft(ids) == tokenizer.decode(ids[:1])


def test_a_canvas_may_be_committed_whole(tokenizer):
    ids = spelled_ids(tokenizer, "the quick brown fox")
    stream = AnswerStream(tokenizer, stop_ids=(EOS,), max_tokens=1000)
    assert list(stream.commit([*ids, EOS, *ids])) == [Delta(Content("the quick brown fox"))]
    assert stream.num_tokens == len(ids)
    assert list(stream.finish("stop")) == [End("stop")]


def test_without_parts_everything_is_content(tokenizer):
    text = "<|channel>thought\nhello<channel|>you"
    stream = AnswerStream(tokenizer, stop_ids=(EOS,), max_tokens=1000)
    ids = spelled_ids(tokenizer, text)
    (delta,) = stream.commit(ids)
    assert delta == Delta(Content(tokenizer.decode(ids)))


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
