"""From records to the examples of a training step."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from redraft.text import TextTokenizer
from redraft.training.data.record import Record
from redraft.training.examples import Example


class RecordExamples(ABC):
    """An endless stream of records as the chat template writes them, `batch_size` a step."""

    def __init__(self, batch_size: int, tokenizer: TextTokenizer) -> None:
        self._batch_size = batch_size
        self.tokenizer = tokenizer
        # What the template writes around a prompt is the same for all; to render each would take most of the time.
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

    @abstractmethod
    def at(self, step: int, index: int) -> Example:
        """Example `index` of the run, which is read in `step`."""

    @abstractmethod
    def validation(self, count: int) -> list[Example]:
        """At most so many examples that are neither trained nor tested on."""

    def example(self, record: Record) -> Example:
        """A record as token ids."""
        prompt = self.tokenizer.encode(record.prompt.strip())
        return Example((*self.before, *prompt, *self.after), (*self.tokenizer.encode(record.answer), self.end))
