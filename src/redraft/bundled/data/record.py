"""The records that all families of training data consist of."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Record:
    """A prompt and its answer. `kind` is the part of the family that it belongs to, for counting."""

    kind: str
    prompt: str
    answer: str


@dataclass(frozen=True)
class Conversation:
    """Messages (roles and contents, the user's last) and the answer to them. `kind` and `language` are for counting."""

    kind: str
    messages: tuple[tuple[str, str], ...]
    answer: str
    language: str = "en"
