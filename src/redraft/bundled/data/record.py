"""What every family of training data is made of."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Record:
    """A prompt and the answer to it. `kind` says what part of its family it is of, for counting."""

    kind: str
    prompt: str
    answer: str
