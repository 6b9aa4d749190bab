"""Fine-tuning data: the rows of a user's file as training examples for their checkpoint."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from redraft.evaluation.cases import Case
from redraft.model.config import ModelConfig
from redraft.text import TextTokenizer
from redraft.training.data.examples import Example, ExampleSource
from redraft.utils.files import write_whole
from redraft.utils.words import counted
from redraft.weights.card import CARD_FILE, Card, write_card
from redraft.weights.config.file import GENERATION_CONFIG_FILE
from redraft.weights.save import COMPANION_FILES

MIN_PROMPTS = 20
"""Of fewer prompts none is held out."""
HELD_OUT_SHARE, FEW_HELD_OUT_SHARE, FEW_HELD_OUT, MAX_HELD_OUT = 0.05, 0.2, 10, 128
MAX_CARD_PROMPT = 300


@dataclass(frozen=True)
class Replay:
    """What is mixed into each step beside the rows, against forgetting: a share of its examples, from `examples`."""

    share: float
    examples: ExampleSource

    def count_until(self, step: int, batch_size: int) -> int:
        """Returns how many of the examples before `step` are not rows: the share, over all steps together."""
        return int(step * batch_size * self.share + 1e-6)


class RowExamples:
    """The rows of each step: every epoch has each row once, in its own order. `lines` are their lines in the file."""

    def __init__(
        self,
        examples: Sequence[Example],
        lines: Sequence[int | None],
        *,
        batch_size: int,
        seed: int,
        replay: Replay | None = None,
    ) -> None:
        self._examples, self._lines = examples, lines
        self._batch_size, self._seed, self._replay = batch_size, seed, replay
        self._order: tuple[int, list[int]] = (-1, [])

    def __call__(self, step: int) -> list[Example]:
        rows = self._rows(step)
        replayed = self._replay.examples(step)[: self._batch_size - len(rows)] if self._replay is not None else ()
        return [*(self._examples[row] for row in rows), *replayed]

    def describe(self, step: int) -> str:
        rows = self._rows(step)
        others = self._batch_size - len(rows)
        lines = f"the rows of lines {', '.join(str(self._lines[row]) for row in rows)}"
        return f"{lines} and {others} replayed" if others else lines

    def _rows(self, step: int) -> list[int]:
        return [self._row(index) for index in range(self._rows_until(step), self._rows_until(step + 1))]

    def _rows_until(self, step: int) -> int:
        replayed = 0 if self._replay is None else self._replay.count_until(step, self._batch_size)
        return step * self._batch_size - replayed

    def _row(self, index: int) -> int:
        epoch, place = divmod(index, len(self._examples))
        if self._order[0] != epoch:
            order = list(range(len(self._examples)))
            random.Random(f"rows/{self._seed}/{epoch}").shuffle(order)
            self._order = (epoch, order)
        return self._order[1][place]


def hold_out(rows: Sequence[Case]) -> tuple[list[Case], list[Case]]:
    """Splits rows into those to train on and those to validate on, always in the same way.

    A twentieth of the distinct prompts is held out with all its rows. Fewer than ten say little, so of fewer than 200
    prompts it is ten, but at most a fifth. None is held out of fewer than twenty.
    """
    prompts = list(dict.fromkeys(row.prompt for row in rows))
    few = min(FEW_HELD_OUT, int(len(prompts) * FEW_HELD_OUT_SHARE))
    count = min(MAX_HELD_OUT, max(few, int(len(prompts) * HELD_OUT_SHARE)))
    count = count if len(prompts) >= MIN_PROMPTS else 0
    chosen = set(random.Random("held out").sample(prompts, count))
    return [row for row in rows if row.prompt not in chosen], [row for row in rows if row.prompt in chosen]


def make_examples(rows: Sequence[Case], path: Path, tokenizer: TextTokenizer, config: ModelConfig) -> list[Example]:
    """Encodes rows. ValueError naming the line of `path` if a row cannot be encoded or exceeds the context."""
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
            f"a prompt of {len(prompt)} tokens and an answer of {counted(canvases, 'canvas', 'canvases')} of "
            f"{config.canvas_length} exceed "
            f"the model's context of {config.max_context}: shorten or drop it"
        )
    return Example(tuple(prompt), answer)


def end_of_answer(tokenizer: TextTokenizer, config: ModelConfig) -> int:
    """Returns the EOS that ends an answer: the one the chat template writes after it, else the tokenizer's own.

    ValueError if it is not one of the model's.
    """
    if not tokenizer.has_chat_template:
        found = tokenizer.eos_id
    else:
        turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "x"}]
        prompt = tokenizer.encode_chat(turns[:1])
        written = tokenizer.encode_chat(turns, add_generation_prompt=False)[len(prompt) :]
        found = next((token for token in written if token in config.eos_ids), None)
    if found is None or found not in config.eos_ids:
        raise ValueError(
            f"answers of this tokenizer end with token {found}, but the model stops at {list(config.eos_ids)}: "
            "they belong to different checkpoints"
        )
    return found


def write_companions(start: Path, folder: Path, purpose: str, rows: Sequence[Case], *, recipe: str = "") -> None:
    """Writes the companion files of a run's checkpoints into `folder`: those of `start`, and a card of its own.

    `recipe` is the one whose data `start` was trained on: what is fine-tuned again can replay them again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in {*COMPANION_FILES, GENERATION_CONFIG_FILE} - {CARD_FILE}:
        if (start / name).is_file():
            write_whole(folder / name, (start / name).read_bytes())
        else:
            (folder / name).unlink(missing_ok=True)
    limits = "It may have forgotten what it was not fine-tuned on."
    write_card(folder, Card(purpose=purpose, limits=limits, examples=_shown(rows), single_turn=True, recipe=recipe))


def write_adapter_card(folder: Path, purpose: str, rows: Sequence[Case]) -> None:
    """Writes the card that goes into a run's adapters, and no other file."""
    folder.mkdir(parents=True, exist_ok=True)
    limits = "It answers what it was fine-tuned on; for all else ask its base."
    write_card(folder, Card(purpose=purpose, limits=limits, examples=_shown(rows), single_turn=True))


def _shown(rows: Sequence[Case]) -> tuple[str, ...]:
    return tuple(row.prompt for row in rows if len(row.prompt) <= MAX_CARD_PROMPT)[:3]


def write_rows(path: Path, rows: Sequence[Case]) -> None:
    lines = (json.dumps({"prompt": row.prompt, "answer": row.answer}, ensure_ascii=False) for row in rows)
    write_whole(path, "".join(f"{line}\n" for line in lines))
