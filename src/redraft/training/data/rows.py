"""Fine-tuning data: a user's rows as the examples of a checkpoint of theirs."""

import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

from redraft.measure.cases import Case
from redraft.model.config import ModelConfig
from redraft.text import TextTokenizer
from redraft.training.examples import Example
from redraft.training.recipes import TrainingSettings

HELD_OUT_SHARE, MOST_HELD_OUT = 0.05, 128
COMPANIONS = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
LONGEST_EXAMPLE_PROMPT = 300


class RowExamples:
    """The examples of each step: every epoch has each row once, in an order of its own."""

    def __init__(self, examples: Sequence[Example], settings: TrainingSettings) -> None:
        self._examples = examples
        self._batch_size, self._seed = settings.batch_size, settings.seed
        self._order: tuple[int, list[int]] = (-1, [])

    def __call__(self, step: int) -> list[Example]:
        return [self._at(step * self._batch_size + i) for i in range(self._batch_size)]

    def _at(self, index: int) -> Example:
        epoch, place = divmod(index, len(self._examples))
        if self._order[0] != epoch:
            order = list(range(len(self._examples)))
            random.Random(f"rows/{self._seed}/{epoch}").shuffle(order)
            self._order = (epoch, order)
        return self._examples[self._order[1][place]]


def hold_out(rows: Sequence[Case]) -> tuple[list[Case], list[Case]]:
    """(rows to train on, rows to validate on): the same for the same rows; no row is held out of fewer than twenty."""
    count = min(MOST_HELD_OUT, int(len(rows) * HELD_OUT_SHARE))
    chosen = set(random.Random("held out").sample(range(len(rows)), count))
    return [row for i, row in enumerate(rows) if i not in chosen], [rows[i] for i in sorted(chosen)]


def make_examples(rows: Sequence[Case], path: Path, tokenizer: TextTokenizer, config: ModelConfig) -> list[Example]:
    """Rows as token ids. ValueError names the line of `path` whose row does not fit into the model's context."""
    end = end_of_answer(tokenizer, config)
    examples = []
    for row in rows:
        if tokenizer.has_chat_template:
            prompt = tokenizer.encode_chat([{"role": "user", "content": row.prompt}])
        else:
            prompt = ([] if config.bos_id is None else [config.bos_id]) + tokenizer.encode(row.prompt)
        answer = (*tokenizer.encode(row.answer), end)
        canvases = -(-len(answer) // config.canvas_length)
        if len(prompt) + canvases * config.canvas_length > config.max_context:
            raise ValueError(
                f"{path}, line {row.line}: a prompt of {len(prompt)} tokens and an answer of {canvases} canvases of "
                f"{config.canvas_length} are more than the model's context of {config.max_context}: shorten or drop it"
            )
        examples.append(Example(tuple(prompt), answer))
    return examples


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


def companions_of(start: Path, folder: Path, purpose: str, rows: Sequence[Case]) -> None:
    """Writes what goes into each checkpoint into `folder`: files of `start`, and a card that says what it is for."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in COMPANIONS:
        if (start / name).exists():
            shutil.copy(start / name, folder / f".{name}.partial")
            (folder / f".{name}.partial").replace(folder / name)
    examples = [row.prompt for row in rows if len(row.prompt) <= LONGEST_EXAMPLE_PROMPT][:3]
    card = {"purpose": purpose, "single_turn": True, "examples": examples}
    temporary = folder / ".redraft.json.partial"
    temporary.write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(folder / "redraft.json")
