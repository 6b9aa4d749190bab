"""The windows of a long text: together all of it, in whole lines and sentences, with an overlap."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from redraft.text.parts.windows import split_windows

TEXT = "\n".join(f"{name} paid {amount} euros. The rest follows." for amount, name in enumerate("abcdefgh" * 6))


def test_neighbours_have_whole_lines_in_common():
    windows = split_windows(TEXT, 60, 20)
    assert len(windows) > 5
    assert all(len(window.split()) <= 60 for window in windows)
    for one, other in itertools.pairwise(windows):
        common = [line for line in one.splitlines() if line in other.splitlines()]
        assert 0 < len(" ".join(common).split()) <= 20
    assert "".join(dict.fromkeys("\n".join(windows).splitlines())) == "".join(dict.fromkeys(TEXT.splitlines()))


def test_a_long_line_is_cut_between_sentences_and_a_short_text_not_at_all():
    line = " ".join(f"Sentence number {at} ends here." for at in range(30))
    windows = split_windows(line, 40, 0)
    assert all(window.startswith("Sentence") and window.endswith("here.") for window in windows)
    assert split_windows("Just this.", 40, 10) == ("Just this.",)
    assert split_windows("", 40, 10) == ()


def test_a_sentence_that_is_longer_than_a_window_is_cut_between_words():
    windows = split_windows(" ".join(f"w{at}" for at in range(100)), 40, 0)
    assert [len(window.split()) for window in windows] == [40, 40, 20]
    assert windows[1].startswith("w40 ")


def test_blank_lines_are_no_windows_of_their_own():
    text = "word " * 30 + "\n" * 5_000 + "other " * 30
    assert len(split_windows(text, 40, 10)) == 2


TEXTS = st.text("ab. \n", max_size=300)


@given(TEXTS, st.integers(1, 12))
def test_windows_without_overlap_are_the_text(text, words):
    assert "".join("".join(split_windows(text, words, 0)).split()) == "".join(text.split())


@given(TEXTS, st.integers(2, 12), st.integers(1, 11))
def test_windows_with_overlap_go_on_and_leave_nothing_out(text, words, overlap):
    windows = split_windows(text, words, min(overlap, words - 1))
    assert all(window and window in text for window in windows)
    assert all(any(word in window.split() for window in windows) for word in text.split())
    assert len(windows) <= len(text.split())
