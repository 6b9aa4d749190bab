"""The windows of a long text: stretches of a few lines or sentences that overlap, none of which is cut within one."""

import re

MAX_LINE = 25
"""Words of a line that is not cut at its sentences."""

_SENTENCE_END = re.compile(r"(?<=[.!?;])(?=\s+[^\sa-z])")


def split_windows(text: str, words: int, overlap: int) -> tuple[str, ...]:
    """Returns the windows of a text, in order: each of at most `words` words where its sentences are not longer.

    overlap: the words, in whole sentences, that neighbours have in common: what belongs together may stand in both.
    """
    pieces = [piece for line in text.splitlines(keepends=True) for piece in _pieces(line)]
    lengths = [len(piece.split()) for piece in pieces]
    windows, start = list[str](), 0
    while start < len(pieces):
        end = _reach(lengths, start, words)
        if window := "".join(pieces[start:end]).strip():
            windows.append(window)
        if end == len(pieces):
            break
        # The next begins as far back as the overlap goes, and behind where this one began.
        back = end
        while back - 1 > start and sum(lengths[back - 1 : end]) <= overlap:
            back -= 1
        start = back
    return tuple(windows)


def _reach(lengths: list[int], start: int, words: int) -> int:
    """Returns where a window that begins with a piece ends: before the first piece that it has no room for."""
    end, held = start + 1, lengths[start]
    while end < len(lengths) and held + lengths[end] <= words:
        held += lengths[end]
        end += 1
    return end


def _pieces(line: str) -> list[str]:
    return [line] if len(line.split()) <= MAX_LINE else [part for part in _SENTENCE_END.split(line) if part]
