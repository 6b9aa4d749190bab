"""Records as the examples of a training step."""

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence

from redraft.bundled.data.extraction.records import list_record
from redraft.bundled.data.extraction.tokenizer import RESERVED_TOKENS, SPECIAL_TOKENS
from redraft.bundled.data.record import Record
from redraft.text import TextTokenizer
from redraft.training.data.examples import Example

COPY_STEPS, LIST_STEPS = (100, 200), (200, 500)
"""The easy start of a run: up to the first step of a pair, all examples are of this kind or an easier one; from the
second step on, none are. First come short sequences of random tokens to copy: everything later builds on copying, and
the model learns it within a hundred such steps, since there are few positions to copy from and nothing else to learn
(on records alone it had not started after 400 steps). Then come short lists of names and values, for the format."""
COPY_LENGTHS = (3, 16)
DATA_SEED = 1
"""The seed of the training stream; stream 0 trained the tokenizer."""


class RecordExamples(ABC):
    """The examples of each step as the chat template writes them: first copies, then lists, then records.

    Each kind is an endless stream; example i of the run is the i-th of one of them.
    """

    def __init__(self, batch_size: int, tokenizer: TextTokenizer, *, easy_start: bool = True) -> None:
        self._batch_size = batch_size
        self._easy_start = easy_start
        self.tokenizer = tokenizer
        # The template writes the same around every prompt; rendering each one would take most of the time.
        probe = tokenizer.encode("x")
        rendered = tokenizer.encode_chat([{"role": "user", "content": "x"}])
        at = next(
            i for i in range(len(rendered)) if rendered[i : i + len(probe)] == probe and rendered[i - 1] != probe[0]
        )
        self.before, self.after = tuple(rendered[:at]), tuple(rendered[at + len(probe) :])
        assert tokenizer.eos_id is not None
        self.end = tokenizer.eos_id

    def __call__(self, step: int) -> Sequence[Example]:
        first = step * self._batch_size
        return [self.at(step, first + i) for i in range(self._batch_size)]

    def at(self, step: int, index: int) -> Example:
        """Returns example `index` of the run, which belongs to `step`."""
        uniform = random.Random(f"kind/{DATA_SEED}/{index}").random()
        if self._easy_start and uniform >= _progress(step, *COPY_STEPS):
            return self.copy(index)
        easy = self._easy_start and uniform >= _progress(step, *LIST_STEPS)
        return self.example(list_record(DATA_SEED, index)) if easy else self.later(step, index)

    def later(self, step: int, index: int) -> Example:
        """Returns example `index` of the run once the easy start is over."""
        return self.example(self.record(index))

    def copy(self, index: int) -> Example:
        """Returns random tokens, whose answer is the same tokens."""
        rng = random.Random(f"copy/{DATA_SEED}/{index}")
        # Ordinary tokens; control tokens come before the alphabet.
        ordinary = range(len(SPECIAL_TOKENS) + RESERVED_TOKENS, self.tokenizer.vocab_size)
        text = tuple(rng.choices(ordinary, k=rng.randint(*COPY_LENGTHS)))
        return Example((*self.before, *text, *self.after), (*text, self.end))

    @abstractmethod
    def record(self, index: int) -> Record:
        """Returns record `index` of the task's stream."""

    @abstractmethod
    def validation(self, count: int) -> list[Example]:
        """Returns at most `count` examples that belong to neither the training stream nor the test sets."""

    def example(self, record: Record) -> Example:
        """Encodes a record."""
        prompt = self.tokenizer.encode(record.prompt.strip())
        return Example((*self.before, *prompt, *self.after), (*self.tokenizer.encode(record.answer), self.end))


def _progress(step: int, first: int, last: int) -> float:
    """Returns 0 up to step `first`, 1 from step `last` on, and linear values between."""
    return min(1.0, max(0.0, (step - first) / (last - first)))
