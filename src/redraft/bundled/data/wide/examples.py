"""The records of the bundled model as training examples: a step's texts are about equally long."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from redraft.bundled.data.families import FAMILIES
from redraft.bundled.data.record import Conversation, Record
from redraft.bundled.data.record_examples import DATA_SEED, RecordExamples
from redraft.bundled.data.wide.records import training_record, validation_record
from redraft.text import TextTokenizer
from redraft.training.data.examples import Example

VALIDATION_SEED = 1


@dataclass(frozen=True)
class LengthClass:
    """Texts of about equal length, of which a step has as many as cost about the same.

    words: the least and the most words (None: without filler). share: of the steps. divisor: how many times fewer
    examples a step has than with texts without filler. max_tokens: an example that is longer, as few are, is replaced.
    """

    words: tuple[int, int] | None
    share: float
    divisor: int
    max_tokens: int


LENGTHS = (
    LengthClass(None, 0.78, 1, 384),
    LengthClass((40, 120), 0.22, 2, 640),
)
"""Of the examples, seven in eight have no filler. Longer texts, a sixth of the steps before, are left out."""
OLD_SHARES = {"extract": 0.34, "normalize": 0.09}
"""Of the examples without filler, those of the families that the model before knew: a run that began with its weights
and had none of them forgot a third of what they can."""
LONG_FROM_STEP = 800
"""Copying over a short way is learned first."""


class WideExamples(RecordExamples):
    """The examples of all families, drawn at random with their shares, and among the short ones the bundled model's."""

    def __init__(self, batch_size: int, tokenizer: TextTokenizer, *, easy_start: bool = True) -> None:
        super().__init__(batch_size, tokenizer, easy_start=easy_start)
        self._has_short_start = easy_start
        self._turns = Turns(tokenizer)

    def __call__(self, step: int) -> Sequence[Example]:
        first, size = step * self._batch_size, max(1, self._batch_size // self.length_class(step).divisor)
        examples = [self.at(step, first + i) for i in range(size)]
        # Parts of a step (`accumulate`) then hold examples of about equal length, which need little padding.
        return sorted(examples, key=lambda example: len(example.prompt) + len(example.answer))

    def length_class(self, step: int) -> LengthClass:
        """Returns how long the texts of a step are."""
        if self._has_short_start and step < LONG_FROM_STEP:
            return LENGTHS[0]
        return random.Random(f"length/{DATA_SEED}/{step}").choices(LENGTHS, [one.share for one in LENGTHS])[0]

    def later(self, step: int, index: int) -> Example:
        length = self.length_class(step)
        if length.words is None and (old := old_record(index)) is not None:
            return self.example(old)
        for attempt in count():
            example = self.encode(training_record(DATA_SEED, index, length.words, attempt))
            if len(example.prompt) + len(example.answer) <= length.max_tokens:
                return example
        raise AssertionError

    def record(self, index: int) -> Record:
        """Returns a record without filler, of a single turn or with its turns run together, for reading."""
        record = training_record(DATA_SEED, index)
        return Record(record.kind, "\n".join(content for _, content in record.messages), record.answer)

    def validation(self, count: int) -> list[Example]:
        """Returns examples of each family in turn."""
        return [self.encode(validation_record(VALIDATION_SEED, index)) for index in range(count)]

    def encode(self, record: Conversation) -> Example:
        """Encodes a conversation as the chat template writes it."""
        return Example(self._turns.encode(record.messages), (*self.tokenizer.encode(record.answer), self.end))


def old_record(index: int) -> Record | None:
    """Returns the record of the bundled model's families that example `index` is, None if it is none of them."""
    drawn = random.Random(f"old/{DATA_SEED}/{index}").random()
    for name, share in OLD_SHARES.items():
        if drawn < share:
            return FAMILIES[name].training(DATA_SEED, index)
        drawn -= share
    return None


class Turns:
    """Encodes conversations as the chat template does, without rendering it for each."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._encode = tokenizer.encode
        self._opening: dict[str, tuple[int, ...]] = {}
        (mark,) = tokenizer.encode("x")
        for role in ("system", "user", "assistant"):
            rendered = tokenizer.encode_chat([{"role": role, "content": "x"}, {"role": role, "content": "x"}])
            first, second = (
                at for at, token in enumerate(rendered) if token == mark and not self._is_in_word(rendered, at)
            )
            self._start, self._end = rendered[0], tuple(rendered[second + 1 :])
            opening = tuple(rendered[1:first])
            self._opening[role] = opening
            self._closing = tuple(rendered[first + 1 : second - len(opening)])

    @staticmethod
    def _is_in_word(rendered: Sequence[int], at: int) -> bool:
        """The name of a role may contain the mark; content stands after a line break."""
        return rendered[at - 1] == rendered[at]

    def encode(self, messages: Sequence[tuple[str, str]]) -> tuple[int, ...]:
        """Returns the prompt's token ids, up to where the answer begins."""
        tokens = [self._start]
        for role, content in messages:
            tokens += [*self._opening[role], *self._encode(content.strip()), *self._closing]
        tokens[len(tokens) - len(self._closing) :] = self._end
        return tuple(tokens)
