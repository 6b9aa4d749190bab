"""A tokenizer's vocabulary as a trie of the bytes of its tokens, level by level; made once per tokenizer."""

import functools
import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Int32s = NDArray[np.int32]


@dataclass(frozen=True, kw_only=True, eq=False)
class TrieLevel:
    """The nodes that are as many bytes deep: byte [n], and parent [n], a node of the level above.

    tokens [t], token_nodes [t]: the tokens that end at this level, and where.
    """

    parent: Int32s
    byte: NDArray[np.uint8]
    tokens: Int32s
    token_nodes: Int32s


class Vocabulary:
    """What the tokens of a model write.

    token_bytes: of each id; None, or no bytes, for one that never stands inside an answer (control tokens). end_ids:
    the tokens that end an answer. strips_first_space: whether decoding loses one space at the very start of an answer.
    Raises ValueError if there are no end_ids or one is not an id.
    """

    def __init__(
        self, token_bytes: Sequence[bytes | None], *, end_ids: Collection[int], strips_first_space: bool = False
    ) -> None:
        self.size = len(token_bytes)
        self.end_ids = tuple(sorted(end_ids))
        self.strips_first_space = strips_first_space
        if not self.end_ids or not 0 <= self.end_ids[0] <= self.end_ids[-1] < self.size:
            raise ValueError(f"the tokens that end an answer are {self.end_ids}, must be ids below {self.size}")
        self.token_bytes = [None if token_id in end_ids else text or None for token_id, text in enumerate(token_bytes)]
        digest = hashlib.sha256(repr((self.size, self.end_ids, strips_first_space)).encode())
        for text in self.token_bytes:
            digest.update(b"-" if text is None else b"%d:%b" % (len(text), text))
        self.hash = digest.hexdigest()
        """Equal for vocabularies that give equal automata."""

    @functools.cached_property
    def levels(self) -> tuple[TrieLevel, ...]:
        """The trie of the tokens."""
        return _levels(self.token_bytes)

    def text_of(self, token_ids: Sequence[int]) -> bytes:
        """Returns what tokens write, without those that have no bytes."""
        text = b"".join(self.token_bytes[token_id] or b"" for token_id in token_ids)
        return text.removeprefix(b" ") if self.strips_first_space else text


def _levels(token_bytes: Sequence[bytes | None]) -> tuple[TrieLevel, ...]:
    texts = {token_id: text for token_id, text in enumerate(token_bytes) if text is not None}
    ids = np.array(sorted(texts, key=texts.__getitem__), dtype=np.int32)
    lengths = np.array([len(texts[token_id]) for token_id in ids.tolist()], dtype=np.int64)
    content = np.frombuffer(b"".join(texts[token_id] for token_id in ids.tolist()), dtype=np.uint8)
    starts = np.cumsum(lengths) - lengths
    node = np.zeros(len(ids), dtype=np.int32)
    active = np.arange(len(ids))
    levels = []
    # The tokens are sorted, so those that share a node stand next to each other.
    for depth in range(int(lengths.max(initial=0))):
        active = active[lengths[active] > depth]
        byte, parent = content[starts[active] + depth], node[active]
        is_new = np.ones(len(active), dtype=bool)
        is_new[1:] = (parent[1:] != parent[:-1]) | (byte[1:] != byte[:-1])
        node[active] = np.cumsum(is_new) - 1
        ended = active[lengths[active] == depth + 1]
        levels.append(TrieLevel(parent=parent[is_new], byte=byte[is_new], tokens=ids[ended], token_nodes=node[ended]))
    return tuple(levels)
