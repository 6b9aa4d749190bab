"""Texts that an answer may be, and how probable each of them is as the whole of a canvas.

At each position a canvas gives every token a probability, independently of the others. That of a label is the sum over
all ways to cut its bytes into tokens, each way followed by ends to the end of the canvas.

C canvas length, L labels, M bytes of a label, T tokens that occur in a label, V vocabulary.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from redraft.constraints.vocabulary import Vocabulary

Floats = NDArray[np.float64]
NO_CLASS = -1
MAX_LABELS = 255
"""Labels whose probabilities are told; of more an answer is one all the same."""


@dataclass(frozen=True, eq=False)
class LabelSet:
    """Texts that an answer may be, and how tokens write them.

    cuts: of each label, by the byte that it begins at, the tokens that may stand there, as (index of `tokens`, bytes).
    sizes: the bytes of each label. tokens: all that occur in one; end_ids: those that end an answer.
    """

    texts: tuple[str, ...]
    cuts: tuple[tuple[tuple[tuple[int, int], ...], ...], ...]
    sizes: tuple[int, ...]
    tokens: tuple[int, ...]
    end_ids: tuple[int, ...]
    vocab_size: int

    @classmethod
    def of(cls, labels: Sequence[str], vocabulary: Vocabulary) -> "LabelSet":
        """Raises ValueError for labels that are not different, or that the tokens cannot write."""
        if len(set(labels)) != len(labels):
            raise ValueError("two labels are the same text: give each once")
        texts = [label.encode() for label in labels]
        most = max((len(token) for token in vocabulary.token_bytes if token is not None), default=0)
        wanted = {
            text[at:end]
            for text in texts
            for at in range(len(text))
            for end in range(at + 1, min(len(text), at + most) + 1)
        }
        ids: dict[bytes, list[int]] = {}
        for token, text in enumerate(vocabulary.token_bytes):
            if text in wanted:
                ids.setdefault(text, []).append(token)
        tokens = [token for found in ids.values() for token in found]
        index = {token: at for at, token in enumerate(tokens)}
        longest = max(map(len, ids), default=0)
        cuts = []
        for text in texts:
            starts = []
            for at in range(len(text)):
                pieces = (text[at:end] for end in range(at + 1, min(len(text), at + longest) + 1))
                starts.append(tuple((index[token], len(piece)) for piece in pieces for token in ids.get(piece, ())))
            cuts.append(tuple(starts))
        return cls(
            tuple(labels), tuple(cuts), tuple(map(len, texts)), tuple(tokens), vocabulary.end_ids, vocabulary.size
        )

    @property
    def class_of_token(self) -> NDArray[np.int64]:
        """[V]: each token of a label by itself, those that end an answer together, and no class for others."""
        classes = np.full(self.vocab_size, NO_CLASS)
        classes[list(self.tokens)] = np.arange(len(self.tokens))
        classes[list(self.end_ids)] = len(self.tokens)
        return classes

    @functools.cached_property
    def min_tokens(self) -> tuple[float, ...]:
        """The fewest tokens that write each label; infinity where none do."""
        found = []
        for starts in self.cuts:
            # fewest[at]: for the bytes from there on.
            fewest = [math.inf] * len(starts) + [0.0]
            for at in reversed(range(len(starts))):
                fewest[at] = min((1 + fewest[at + count] for _, count in starts[at]), default=math.inf)
            found.append(fewest[0])
        return tuple(found)

    def log_masses(self, log_probs: Floats) -> Floats:
        """Returns the log-probability [L] that a canvas is each label and nothing behind it.

        log_probs [C, T+1]: of each token at each position, and in the last column of an end.
        """
        length = len(log_probs)
        # The sum over the ends from each position on.
        ends = np.append(np.cumsum(log_probs[::-1, -1])[::-1], 0.0)
        found = np.full(len(self.cuts), -np.inf)
        for number, (starts, size) in enumerate(zip(self.cuts, self.sizes, strict=True)):
            # reached[at]: of the tokens before a position, that they write the label's first `at` bytes.
            reached = np.full(size + 1, -np.inf)
            reached[0] = 0.0
            for position in range(min(length, size) + 1):
                found[number] = np.logaddexp(found[number], reached[size] + ends[position])
                if position == length:
                    break
                following = np.full(size + 1, -np.inf)
                for at in np.flatnonzero(reached[:size] > -np.inf):
                    for token, count in starts[at]:
                        log_prob = reached[at] + log_probs[position, token]
                        following[at + count] = np.logaddexp(following[at + count], log_prob)
                reached = following
        return found
