from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders

from redraft.text import TextTokenizer
from redraft.text.detokenizer import Detokenizer, streaming
from tests.fakes.tokenizers import byte_level_tokenizer, gemma_tokenizer, llama_tokenizer, metaspace_tokenizer


def whole_tokenizer() -> Tokenizer:
    """A decoder that looks at the end of the text, which cannot be streamed."""
    tokenizer = gemma_tokenizer()
    tokenizer.decoder = decoders.BPEDecoder(suffix="e")
    return tokenizer


RAW = {
    "bytes": byte_level_tokenizer(),
    "gemma": gemma_tokenizer(),
    "llama": llama_tokenizer(),
    "metaspace": metaspace_tokenizer(),
    "whole": whole_tokenizer(),
}
TEXT = {name: TextTokenizer(tokenizer) for name, tokenizer in RAW.items()}
SAMPLES = ["  two  spaces ", "héllo 漢字 👩‍🚀!", "\n\n", "a\x00b", "�", "", "plain words, 10 < 20", "🙂" * 30]


def pieces(detokenizer: Detokenizer, ids: list[int], cuts: list[int]) -> list[str]:
    edges = [0, *sorted(cut % (len(ids) + 1) for cut in cuts), len(ids)]
    found = [detokenizer.push(ids[start:end]) for start, end in pairwise(edges)]
    return [*found, detokenizer.finish()]


def likely_bytes(name: str) -> st.SearchStrategy[int]:
    """Ids, many of them of tokens that are bytes: those of the characters and byte tokens come first."""
    return st.one_of(st.integers(0, TEXT[name].vocab_size - 1), st.integers(130, 265))


@pytest.mark.parametrize("name", RAW)
@pytest.mark.parametrize("skip_special", [True, False])
def test_random_ids_in_random_pieces_give_the_text_of_all_at_once(name: str, skip_special: bool) -> None:
    tokenizer = TEXT[name]

    @settings(max_examples=80, deadline=None, derandomize=True)
    @given(ids=st.lists(likely_bytes(name), max_size=30), cuts=st.lists(st.integers(0, 30), max_size=8))
    def check(ids: list[int], cuts: list[int]) -> None:
        found = pieces(tokenizer.detokenizer(skip_special=skip_special), ids, cuts)
        assert "".join(found) == tokenizer.decode(ids, skip_special=skip_special)

    check()


@pytest.mark.parametrize("name", RAW)
@pytest.mark.parametrize("text", SAMPLES)
def test_text_token_by_token_has_whole_characters_only(name: str, text: str) -> None:
    tokenizer = TEXT[name]
    ids = tokenizer.encode(text)
    found = pieces(tokenizer.detokenizer(), ids, list(range(len(ids))))
    assert "".join(found) == tokenizer.decode(ids)
    if "�" not in text:
        assert not any("�" in piece for piece in found)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("bytes", "bytes"), ("gemma", "pieces"), ("llama", "pieces"), ("metaspace", "pieces"), ("whole", "whole")],
)
def test_the_decoder_decides_how_text_is_streamed(name: str, kind: str) -> None:
    assert streaming(RAW[name]) == kind


def test_words_come_out_at_once_and_byte_runs_when_they_end() -> None:
    tokenizer = TEXT["gemma"]
    detokenizer = tokenizer.detokenizer()
    assert detokenizer.push(tokenizer.encode("the dog")) == "the dog"
    star = tokenizer.encode("★")
    assert len(star) == 3
    assert [detokenizer.push([token_id]) for token_id in star] == ["", "", ""]
    assert detokenizer.push(tokenizer.encode(" on")) == "★ on"
    assert detokenizer.push(star) == ""
    assert detokenizer.finish() == "★"


def test_a_character_spread_over_byte_level_tokens_comes_out_with_its_last_byte() -> None:
    tokenizer = TEXT["bytes"]
    detokenizer = tokenizer.detokenizer()
    assert [detokenizer.push([token_id]) for token_id in tokenizer.encode("★")] == ["", "", "★"]


def test_a_finished_detokenizer_starts_a_new_text() -> None:
    tokenizer = TEXT["llama"]
    detokenizer = tokenizer.detokenizer()
    for _ in range(2):
        assert detokenizer.push(tokenizer.encode("the dog")) + detokenizer.finish() == "the dog"


@pytest.mark.parametrize("token_id", [-1, 10**6])
def test_an_id_outside_the_vocabulary_is_refused_and_nothing_is_taken(token_id: int) -> None:
    tokenizer = TEXT["gemma"]
    detokenizer = tokenizer.detokenizer()
    with pytest.raises(ValueError, match="outside the vocabulary, ids go from 0 to 399"):
        detokenizer.push([*tokenizer.encode("dog"), token_id])
    assert detokenizer.finish() == ""


class CountingTokenizer:
    """Counts the ids that are decoded."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.decoder = tokenizer.decoder
        self.decoded = 0

    def id_to_token(self, token_id: int) -> str | None:
        return self._tokenizer.id_to_token(token_id)

    def decode(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        self.decoded += len(ids)
        return self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)


@pytest.mark.parametrize("name", RAW)
@pytest.mark.parametrize("text", ["the dog ", "★"])
def test_cost_is_linear_in_the_tokens(name: str, text: str) -> None:
    counting = CountingTokenizer(RAW[name])
    ids = TEXT[name].encode(text * 200)
    detokenizer = Detokenizer(counting, vocab_size=TEXT[name].vocab_size)  # type: ignore[arg-type]
    for token_id in ids:
        detokenizer.push([token_id])
    detokenizer.finish()
    assert counting.decoded <= 4 * len(ids)


@pytest.mark.parametrize("name", [name for name in RAW if name != "whole"])
def test_the_bytes_of_all_tokens_are_those_of_each(name: str) -> None:
    tokenizer = TEXT[name]
    found = tokenizer.all_token_bytes().tokens
    assert len(found) == tokenizer.vocab_size
    for token_id, text in enumerate(found):
        if token_id in tokenizer.special_ids:
            assert text is None
        # Without byte fallback, what looks like a byte token is text.
        elif text is not None and not (name == "metaspace" and text.startswith(b"<0x")):
            assert text == tokenizer.token_bytes(token_id)
    left_out = [
        token_id for token_id, text in enumerate(found) if text is None and token_id not in tokenizer.special_ids
    ]
    assert not left_out or name == "metaspace"
    assert len(tokenizer.all_token_bytes(5).tokens) == 5


@pytest.mark.parametrize("name", [name for name in RAW if name != "whole"])
def test_texts_are_the_bytes_of_their_tokens_but_for_the_first_space(name: str) -> None:
    tokenizer = TEXT[name]
    found = tokenizer.all_token_bytes()
    known = [token_id for token_id, text in enumerate(found.tokens) if text is not None]

    @settings(max_examples=200, deadline=None, derandomize=True)
    @given(ids=st.lists(st.sampled_from(known), max_size=8))
    def check(ids: list[int]) -> None:
        joined = b"".join(found.tokens[token_id] or b"" for token_id in ids)
        try:
            text = joined.decode()
        except UnicodeDecodeError:
            return
        assert tokenizer.decode(ids) == (text.removeprefix(" ") if found.strips_first_space else text)

    check()
    assert found.strips_first_space == (name in ("llama", "metaspace"))


def test_a_decoder_that_looks_at_neighbours_has_no_bytes_of_tokens() -> None:
    with pytest.raises(ValueError, match=r"BPEDecoder.*token by token"):
        TEXT["whole"].all_token_bytes()
