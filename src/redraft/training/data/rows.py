"""Fine-tuning data: the rows of a user's file as training examples for their checkpoint."""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redraft.evaluation.cases import Case
from redraft.model.config import ModelConfig
from redraft.text import TextTokenizer
from redraft.training.data.examples import Example, ExampleSource
from redraft.training.data.files import TrainingRow, place_of
from redraft.utils.files import write_whole
from redraft.utils.words import counted
from redraft.weights.card import CARD_FILE, Card, write_card
from redraft.weights.config.file import GENERATION_CONFIG_FILE
from redraft.weights.save import COMPANION_FILES

MIN_PROMPTS = 20
"""Of fewer prompts none is held out."""
HELD_OUT_SHARE, FEW_HELD_OUT_SHARE, FEW_HELD_OUT, MAX_HELD_OUT = 0.05, 0.2, 10, 128
MAX_CARD_PROMPT = 300
TOOL_RESPONSE = "<|tool_response>"


@dataclass(frozen=True)
class Replay:
    """What is mixed into each step beside the rows, against forgetting: a share of its examples, from `examples`."""

    share: float
    examples: ExampleSource

    def count_until(self, step: int, batch_size: int) -> int:
        """Returns how many of the examples before `step` are not rows: the share, over all steps together."""
        return int(step * batch_size * self.share + 1e-6)


class RowExamples:
    """The rows of each step: every epoch has each row once, in its own order. `places` say where each comes from.

    weights: how often an epoch has each row, on average, instead.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        places: Sequence[str],
        *,
        weights: Sequence[float] | None = None,
        batch_size: int,
        seed: int,
        replay: Replay | None = None,
    ) -> None:
        self._examples, self._places = examples, places
        # As many as an epoch has of each: whole ones, and the sum of what is left over.
        self._weights = [1.0] * len(examples) if weights is None else list(weights)
        self._epoch_size = max(1, round(sum(self._weights)))
        self._batch_size, self._seed, self._replay = batch_size, seed, replay
        self._order: tuple[int, list[int]] = (-1, [])

    def __call__(self, step: int) -> list[Example]:
        rows = self._rows(step)
        replayed = self._replay.examples(step)[: self._batch_size - len(rows)] if self._replay is not None else ()
        return [*(self._examples[row] for row in rows), *replayed]

    def describe(self, step: int) -> str:
        rows = self._rows(step)
        others = self._batch_size - len(rows)
        lines = f"the rows of {', '.join(self._places[row] for row in rows)}"
        return f"{lines} and {others} replayed" if others else lines

    def _rows(self, step: int) -> list[int]:
        return [self._row(index) for index in range(self._rows_until(step), self._rows_until(step + 1))]

    def _rows_until(self, step: int) -> int:
        replayed = 0 if self._replay is None else self._replay.count_until(step, self._batch_size)
        return step * self._batch_size - replayed

    def _row(self, index: int) -> int:
        epoch, place = divmod(index, self._epoch_size)
        if self._order[0] != epoch:
            drawn = random.Random(f"rows/{self._seed}/{epoch}")
            order = [row for row, weight in enumerate(self._weights) for _ in range(int(weight))]
            rests = [weight % 1 for weight in self._weights]
            if (missing := self._epoch_size - len(order)) > 0:
                order += drawn.choices(range(len(rests)), rests, k=missing)
            drawn.shuffle(order)
            self._order = (epoch, order[: self._epoch_size])
        return self._order[1][place]


def hold_out(rows: Sequence[TrainingRow]) -> tuple[list[TrainingRow], list[TrainingRow]]:
    """Splits rows into those to train on and those to validate on, always in the same way.

    A twentieth of the distinct prompts is held out with all its rows. Fewer than ten say little, so of fewer than 200
    prompts it is ten, but at most a fifth. None is held out of fewer than twenty.
    """
    prompts = list(dict.fromkeys(row.key for row in rows))
    few = min(FEW_HELD_OUT, int(len(prompts) * FEW_HELD_OUT_SHARE))
    count = min(MAX_HELD_OUT, max(few, int(len(prompts) * HELD_OUT_SHARE)))
    count = count if len(prompts) >= MIN_PROMPTS else 0
    chosen = set(random.Random("held out").sample(prompts, count))
    return [row for row in rows if row.key not in chosen], [row for row in rows if row.key in chosen]


def encode_rows(
    rows: Sequence[TrainingRow], tokenizer: TextTokenizer, config: ModelConfig
) -> tuple[list[tuple[TrainingRow, Example]], list[str]]:
    """Encodes rows; the second is a sentence, with file and line, for each that cannot be or exceeds the context."""
    end = end_of_answer(tokenizer, config)
    encoded, faults = [], []
    for row in rows:
        try:
            encoded.append((row, _example(row, end, tokenizer, config)))
        except ValueError as error:
            faults.append(f"{row.file}, {place_of(row.file, row.line)}: {error}")
    return encoded, faults


def _example(row: TrainingRow, end: int, tokenizer: TextTokenizer, config: ModelConfig) -> Example:
    variables: dict[str, Any] = {"tools": list(row.tools)} if row.tools else {}
    messages = row.messages or ({"role": "user", "content": row.prompt},)
    if tokenizer.has_chat_template:
        prompt = tokenizer.encode_chat(messages, **variables)
    elif len(messages) > 1:
        raise ValueError("the checkpoint has no chat template, so it cannot read a conversation")
    else:
        prompt = ([] if config.bos_id is None else [config.bos_id]) + tokenizer.encode(row.prompt)
    if row.reply is None:
        answer = (*tokenizer.encode(row.answer), end)
    else:
        answer = _written(messages, row.reply, prompt, end, tokenizer, config, variables)
    if len(answer) < 2:
        raise ValueError("the answer is nothing but its end: leave the row out, or write an answer")
    canvases = -(-len(answer) // config.canvas_length)
    if len(prompt) + canvases * config.canvas_length > config.max_context:
        raise ValueError(
            f"a prompt of {len(prompt)} tokens and an answer of {counted(canvases, 'canvas')} of "
            f"{config.canvas_length} exceed "
            f"the model's context of {config.max_context}: shorten or drop it"
        )
    return Example(tuple(prompt), answer)


def _written(
    messages: Sequence[Mapping[str, object]],
    reply: Mapping[str, object],
    prompt: Sequence[int],
    end: int,
    tokenizer: TextTokenizer,
    config: ModelConfig,
    variables: Mapping[str, Any],
) -> tuple[int, ...]:
    """Returns what the chat template writes of a reply, from behind the header of its turn to the EOS that ends it.

    What asks for an answer may go on behind the header, as with an empty thought. A turn that ends in calls stays open:
    there the model stops at the token that begins their result.
    """
    before = tokenizer.encode_chat(messages, add_generation_prompt=False, **variables)
    whole = tokenizer.encode_chat((*messages, reply), add_generation_prompt=False, **variables)
    start = len(before)
    if whole[:start] != before or list(prompt[:start]) != before:
        raise ValueError("the chat template changes the conversation where an answer follows: it cannot be supervised")
    both = list(zip(whole[start:], prompt[start:], strict=False))
    header = next((i for i, (one, two) in enumerate(both) if one != two), len(both))
    written = whole[start + header :]
    stop = next((i for i, token in enumerate(written) if token in config.eos_ids), None)
    if stop is not None:
        return tuple(written[: stop + 1])
    result = tokenizer.token_id(TOOL_RESPONSE)
    return (*written, result if result in config.eos_ids else end)


def end_of_answer(tokenizer: TextTokenizer, config: ModelConfig) -> int:
    """Returns the EOS that ends an answer: the one the chat template writes after it, else the tokenizer's own.

    ValueError if it is not one of the model's.
    """
    if not tokenizer.has_chat_template:
        found = tokenizer.eos_id
    else:
        turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "x"}]
        written = tokenizer.encode_chat(turns, add_generation_prompt=False)
        found = next((token for token in reversed(written) if token in config.eos_ids), None)
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
    card = Card(purpose=purpose, limits=limits, examples=_shown(rows), single_turn=_is_single(rows), recipe=recipe)
    write_card(folder, card)


def write_adapter_card(folder: Path, purpose: str, rows: Sequence[Case]) -> None:
    """Writes the card that goes into a run's adapters, and no other file."""
    folder.mkdir(parents=True, exist_ok=True)
    limits = "It answers what it was fine-tuned on; for all else ask its base."
    write_card(folder, Card(purpose=purpose, limits=limits, examples=_shown(rows), single_turn=_is_single(rows)))


def _is_single(rows: Sequence[Case]) -> bool:
    return all(len(row.messages) <= 1 for row in rows)


def _shown(rows: Sequence[Case]) -> tuple[str, ...]:
    return tuple(row.prompt for row in rows if len(row.prompt) <= MAX_CARD_PROMPT and len(row.messages) <= 1)[:3]


def write_rows(path: Path, rows: Sequence[Case]) -> None:
    asked = ({"messages": row.messages} if row.messages else {"prompt": row.prompt} for row in rows)
    both = (one | {"answer": row.answer} for one, row in zip(asked, rows, strict=True))
    lines = (json.dumps(one, ensure_ascii=False) for one in both)
    write_whole(path, "".join(f"{line}\n" for line in lines))
