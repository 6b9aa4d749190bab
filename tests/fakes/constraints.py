"""Constraints for the tiny model: its 61 tokens as texts, and automata over them."""

import dataclasses
import string
from functools import cache

import numpy as np

from redraft.constraints.build import ConstraintSpec, build
from redraft.constraints.tokens import NEVER, TokenAutomaton
from redraft.constraints.vocabulary import Vocabulary

END, VOCAB = 1, 61
# Single characters, then some of several; 0 is a control token. "é" is there as its two bytes only.
_TEXTS = [*string.ascii_lowercase, *string.digits, *'{}[]":,.- ', '": ', ', "', '{"', '"}', "10", "true", "null"]
TOKENS: list[bytes | None] = [None, None, *(text.encode() for text in _TEXTS), b"\xc3", b"\xa9", b"\xc3\xa9"]
TOKENS += [None] * (VOCAB - len(TOKENS))
VOCABULARY = Vocabulary(TOKENS, end_ids=[END])


@cache
def automaton(kind: str, text: str) -> TokenAutomaton:
    """The automaton of a regex or of a JSON Schema."""
    return build(ConstraintSpec(kind=kind, text=text), VOCABULARY)


def anything(vocab_size: int = VOCAB, ends: tuple[int, ...] = (END,)) -> TokenAutomaton:
    """The language that allows everything, behind the end too."""
    class_of_token = np.zeros(vocab_size, dtype=np.int32)
    class_of_token[list(ends)] = 1
    return TokenAutomaton(
        class_of_token=class_of_token,
        first=np.array([0, 2, 4], dtype=np.int32),
        arc_class=np.array([0, 1, 0, 1], dtype=np.int32),
        target=np.array([0, 1, 1, 1], dtype=np.int32),
        distance=np.array([1, 0], dtype=np.int32),
        start=0,
        done=1,
    )


def forbidding(tokens: set[int]) -> TokenAutomaton:
    """The language that allows everything without these tokens, behind the end too."""
    everything = anything()
    class_of_token = everything.class_of_token.copy()
    class_of_token[list(tokens)] = NEVER
    return dataclasses.replace(everything, class_of_token=class_of_token)
