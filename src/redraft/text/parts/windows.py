"""The windows of a long text: stretches of a few lines or sentences that overlap."""

import re

MAX_LINE = 25
"""Words of a line that is not cut at its sentences."""

_SENTENCE_END = re.compile(r"(?<=[.!?;])(?=\s+[^\sa-z])")


def split_windows(text: str, words: int, overlap: int) -> tuple[str, ...]:
    """Returns the windows of a text, in order: each of at most `words` words.

    overlap: the words, in whole sentences, that neighbours have in common: what belongs together may stand in both.
    """
    pieces = list[str]()
    for piece in (piece for line in text.splitlines(keepends=True) for piece in _pieces(line, words)):
        if pieces and not piece.strip():
            # Blank lines stay with what is before them.
            pieces[-1] += piece
        else:
            pieces.append(piece)
    lengths = [len(piece.split()) for piece in pieces]
    windows, start = list[str](), 0
    while start < len(pieces):
        end = _reach(lengths, start, words)
        if window := "".join(pieces[start:end]).strip():
            windows.append(window)
        if end == len(pieces):
            break
        # The next begins as far back as the overlap goes, and behind where this one began.
        back, shared = end, 0
        while back - 1 > start and shared + lengths[back - 1] <= overlap:
            back -= 1
            shared += lengths[back]
        start = back
    return tuple(windows)


def _reach(lengths: list[int], start: int, words: int) -> int:
    """Returns where a window that begins with a piece ends: before the first piece that it has no room for."""
    end, held = start + 1, lengths[start]
    while end < len(lengths) and held + lengths[end] <= words:
        held += lengths[end]
        end += 1
    return end


def _pieces(line: str, words: int) -> list[str]:
    """Returns the sentences of a long line, cut within where one is longer than a window."""
    if len(line.split()) <= min(MAX_LINE, words):
        return [line]
    sentences = (part for part in _SENTENCE_END.split(line) if part)
    return [
        part
        for sentence in sentences
        for part in (
            [sentence] if len(sentence.split()) <= words else re.findall(rf"\s*(?:\S+\s*){{1,{words}}}", sentence)
        )
    ]
