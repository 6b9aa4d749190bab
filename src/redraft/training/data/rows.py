"""Fine-tuning data: a user's rows as the examples of a checkpoint of theirs."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

from redraft.evaluation.cases import Case
from redraft.model.config import ModelConfig
from redraft.text import TextTokenizer
from redraft.training.data.examples import Example
from redraft.training.recipe import TrainingSettings
from redraft.utils.files import write_whole
from redraft.weights.card import Card, write_card

HELD_OUT_SHARE, MOST_HELD_OUT = 0.05, 128
COMPANIONS = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
LONGEST_EXAMPLE_PROMPT = 300


class RowExamples:
    """The examples of each step: every epoch has each row once, in an order of its own. `lines` are the rows' own."""

    def __init__(self, examples: Sequence[Example], lines: Sequence[int | None], settings: TrainingSettings) -> None:
        self._examples, self._lines = examples, lines
        self._batch_size, self._seed = settings.batch_size, settings.seed
        self._order: tuple[int, list[int]] = (-1, [])

    def __call__(self, step: int) -> list[Example]:
        return [self._examples[row] for row in self._rows(step)]

    def describe(self, step: int) -> str:
        """Where the rows of a step stand in their file."""
        return f"the rows of lines {', '.join(str(self._lines[row]) for row in self._rows(step))}"

    def _rows(self, step: int) -> list[int]:
        return [self._row(step * self._batch_size + i) for i in range(self._batch_size)]

    def _row(self, index: int) -> int:
        epoch, place = divmod(index, len(self._examples))
        if self._order[0] != epoch:
            order = list(range(len(self._examples)))
            random.Random(f"rows/{self._seed}/{epoch}").shuffle(order)
            self._order = (epoch, order)
        return self._order[1][place]


def hold_out(rows: Sequence[Case]) -> tuple[list[Case], list[Case]]:
    """(rows to train on, rows to validate on), the same for the same rows.

    A twentieth of the distinct prompts is held out with all its rows, none of fewer than twenty.
    """
    prompts = list(dict.fromkeys(row.prompt for row in rows))
    count = min(MOST_HELD_OUT, int(len(prompts) * HELD_OUT_SHARE))
    chosen = set(random.Random("held out").sample(prompts, count))
    return [row for row in rows if row.prompt not in chosen], [row for row in rows if row.prompt in chosen]


def make_examples(rows: Sequence[Case], path: Path, tokenizer: TextTokenizer, config: ModelConfig) -> list[Example]:
    """Rows as token ids. ValueError names the line of `path` whose row cannot be encoded or is beyond the context."""
    end = end_of_answer(tokenizer, config)
    examples = []
    for row in rows:
        try:
            examples.append(_example(row, end, tokenizer, config))
        except ValueError as error:
            raise ValueError(f"{path}, line {row.line}: {error}") from None
    return examples


def _example(row: Case, end: int, tokenizer: TextTokenizer, config: ModelConfig) -> Example:
    if tokenizer.has_chat_template:
        prompt = tokenizer.encode_chat([{"role": "user", "content": row.prompt}])
    else:
        prompt = ([] if config.bos_id is None else [config.bos_id]) + tokenizer.encode(row.prompt)
    answer = (*tokenizer.encode(row.answer), end)
    canvases = -(-len(answer) // config.canvas_length)
    if len(prompt) + canvases * config.canvas_length > config.max_context:
        raise ValueError(
            f"a prompt of {len(prompt)} tokens and an answer of {canvases} canvases of {config.canvas_length} are more "
            f"than the model's context of {config.max_context}: shorten or drop it"
        )
    return Example(tuple(prompt), answer)


def end_of_answer(tokenizer: TextTokenizer, config: ModelConfig) -> int:
    """The EOS that ends an answer: what the chat template writes behind one, else the tokenizer's own.

    ValueError where that is none of the model's.
    """
    if not tokenizer.has_chat_template:
        found = tokenizer.eos_id
    else:
        turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "x"}]
        asked = tokenizer.encode_chat(turns[:1])
        written = tokenizer.encode_chat(turns, add_generation_prompt=False)[len(asked) :]
        found = next((token for token in written if token in config.eos_ids), None)
    if found is None or found not in config.eos_ids:
        raise ValueError(
            f"answers of this tokenizer end with token {found}, the model stops at {list(config.eos_ids)}: "
            "they belong to different checkpoints"
        )
    return found


def write_companions(start: Path, folder: Path, purpose: str, rows: Sequence[Case]) -> None:
    """Writes what goes into each checkpoint into `folder`: files of `start`, and a card that says what it is for."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in COMPANIONS:
        if (start / name).exists():
            write_whole(folder / name, (start / name).read_bytes())
        else:
            (folder / name).unlink(missing_ok=True)
    examples = tuple(row.prompt for row in rows if len(row.prompt) <= LONGEST_EXAMPLE_PROMPT)[:3]
    limits = "What it was not fine-tuned on it may have forgotten."
    write_card(folder, Card(purpose=purpose, limits=limits, examples=examples, single_turn=True))


def write_rows(path: Path, rows: Sequence[Case]) -> None:
    """Rows as `read_rows` reads them."""
    lines = (json.dumps({"prompt": row.prompt, "answer": row.answer}, ensure_ascii=False) for row in rows)
    write_whole(path, "".join(f"{line}\n" for line in lines))
