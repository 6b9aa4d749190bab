"""The parts of an answer: content, thoughts and tool calls, from token ids that arrive in pieces.

Gemma 4's chat template writes them like this:

    <|channel>thought\n ... <channel|>  ...  <|tool_call>call:NAME{key:<|"|>string<|"|>,n:3}<tool_call|>

Only control tokens count; a text that spells them is text. An opening token ends whatever is open; a closing token or
quote outside its place has no meaning and no text. With a tokenizer that lacks these tokens everything is content.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import groupby

from redraft.text.calls import ToolCall, read_call
from redraft.text.detokenizer import check_ids
from redraft.text.tokenizer import TextTokenizer

THOUGHT = "thought"


@dataclass(frozen=True)
class Content:
    """Text for the reader."""

    text: str


@dataclass(frozen=True)
class Reasoning:
    """Text of a thought."""

    text: str


Part = Content | Reasoning | ToolCall


class _Mark(Enum):
    CHANNEL = "<|channel>"
    CHANNEL_END = "<channel|>"
    CALL = "<|tool_call>"
    CALL_END = "<tool_call|>"
    QUOTE = '<|"|>'


_OPENING = frozenset({_Mark.CHANNEL, _Mark.CALL})
_HEEDED = {
    None: _OPENING,
    _Mark.CHANNEL: _OPENING | {_Mark.CHANNEL_END},
    _Mark.CALL: _OPENING | {_Mark.CALL_END, _Mark.QUOTE},
}
"""The marks that count in content, in a channel and in a call; others have no meaning there."""


class Transcript:
    """An incremental parser from token ids to parts; its cost is linear in the tokens, however they are split.

    Text is returned as soon as it is certain, a tool call when it has ended. EOS tokens need not be cut off. Without
    `parses_parts` all is content.
    """

    def __init__(self, tokenizer: TextTokenizer, *, parses_parts: bool = True) -> None:
        self._detokenizer = tokenizer.detokenizer()
        self._vocab_size = tokenizer.vocab_size
        self._marks = _marks(tokenizer) if parses_parts else {}
        self._begin(None)

    def push(self, ids: Sequence[int]) -> list[Part]:
        """Takes more ids and returns the parts that become certain; none is empty, and neighbours of a kind are joined.

        Raises ValueError, and takes none of them, if an id is outside the vocabulary.
        """
        check_ids(ids, self._vocab_size)
        parts: list[Part] = []
        start = 0
        marked = [at for at, token_id in enumerate(ids) if token_id in self._marks] if self._marks else []
        for at in marked:
            mark = self._marks[ids[at]]
            if mark in _HEEDED[self._open]:
                parts += self._take(self._detokenizer.push(ids[start:at]) + self._detokenizer.finish())
                parts += self._turn(mark)
                start = at + 1
        parts += self._take(self._detokenizer.push(ids[start:]))
        return _joined(parts)

    def finish(self) -> list[Part]:
        """Returns the rest of an answer that ends here; afterwards the transcript is ready for a new one."""
        parts = [*self._take(self._detokenizer.finish()), *self._end()]
        self._begin(None)
        return _joined(parts)

    def _begin(self, opening: _Mark | None) -> None:
        self._open = opening
        self._texts: list[list[str]] = [[]]
        """Of a call, its text, split at the quotes; of a channel, its first line, which is its name and is dropped."""
        self._kind: type[Content | Reasoning] | None = Content if opening is None else None

    def _take(self, text: str) -> list[Part]:
        if self._open is _Mark.CALL:
            self._texts[-1].append(text)
            return []
        if self._kind is None:
            head, newline, text = text.partition("\n")
            self._texts[-1].append(head)
            if not newline:
                return []
            self._kind = Reasoning if "".join(self._texts[-1]).strip() == THOUGHT else Content
        return [self._kind(text)]

    def _turn(self, mark: _Mark) -> list[Part]:
        if mark is _Mark.QUOTE:
            self._texts.append([])
            return []
        parts = self._end()
        self._begin(mark if mark in _OPENING else None)
        return parts

    def _end(self) -> list[Part]:
        return [read_call(["".join(texts) for texts in self._texts])] if self._open is _Mark.CALL else []


def part_tokens(tokenizer: TextTokenizer) -> dict[str, int]:
    """Returns the ids of the control tokens that mark parts, by name; pairs of which there is only one are left out."""
    return {mark.value: token_id for token_id, mark in _marks(tokenizer).items()}


def _marks(tokenizer: TextTokenizer) -> dict[int, _Mark]:
    ids = {mark: tokenizer.token_id(mark.value) for mark in _Mark}
    found = {mark: token_id for mark, token_id in ids.items() if token_id in tokenizer.special_ids}
    for pair in ({_Mark.CHANNEL, _Mark.CHANNEL_END}, {_Mark.CALL, _Mark.CALL_END}):
        if not pair <= found.keys():
            found = {mark: token_id for mark, token_id in found.items() if mark not in pair}
    return {token_id: mark for mark, token_id in found.items() if token_id is not None}


def _joined(parts: Iterable[Part]) -> list[Part]:
    """Returns parts without empty texts, with neighbours of one kind joined."""
    joined: list[Part] = []
    for kind, group in groupby((part for part in parts if isinstance(part, ToolCall) or part.text), type):
        if kind is ToolCall:
            joined += group
        else:
            text = "".join(part.text for part in group if not isinstance(part, ToolCall))
            joined.append(Reasoning(text) if kind is Reasoning else Content(text))
    return joined
