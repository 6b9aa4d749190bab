"""The record that all families of training data consist of."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Record:
    """A prompt and its answer. `kind` is the part of the family that it belongs to, for counting."""

    kind: str
    prompt: str
    answer: str
