"""What a fine-tuning run trains on and validates on, from a user's files, and what should be known of it."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from redraft.model.config import ModelConfig
from redraft.text import TextTokenizer
from redraft.training.data.examples import Example
from redraft.training.data.files import RowFormat, TrainingRow, read_training_rows
from redraft.training.data.rows import encode_rows, hold_out
from redraft.utils.rows.formats import BadRow
from redraft.utils.words import counted

MAX_SHOWN = 3
MAX_WEIGHT = 1000


@dataclass(frozen=True)
class FineTuningData:
    """The rows of some files, encoded.

    rows, examples, weights: what is trained on, each with how often an epoch has it. held_out: what can be validated
    on. dropped: a sentence for each row that is left out. identity: what tells the data from others.
    """

    rows: list[TrainingRow]
    examples: list[Example]
    weights: list[float]
    held_out: list[tuple[TrainingRow, Example]]
    dropped: list[str]
    identity: dict[str, str]

    @property
    def epoch_size(self) -> int:
        return max(1, round(sum(self.weights)))

    @property
    def places(self) -> list[str]:
        """Where each row comes from."""
        return [f"{row.file}, line {row.line}" for row in self.rows]

    def describe(self, canvas_length: int) -> Iterator[str]:
        """Yields lines on the sizes of the rows, on what is dropped, and on rows that repeat or contradict others."""
        prompts, answers = ([len(part) for part in parts] for parts in zip(*map(_parts, self.examples), strict=True))
        canvases = [-(-count // canvas_length) for count in answers]
        each = f"{min(canvases)}" if min(canvases) == max(canvases) else f"{min(canvases)} to {max(canvases)}"
        longest = max(range(len(prompts)), key=lambda at: prompts[at] + answers[at])
        yield (
            f"{counted(len(self.rows), 'row')}, {sum(prompts) + sum(answers):,} tokens: prompts of {min(prompts)} to "
            f"{max(prompts)} (median {median(prompts):g}), answers of {min(answers)} to {max(answers)} (median "
            f"{median(answers):g}), {each} {'canvas' if each == '1' else 'canvases'} of {canvas_length} each; the "
            f"longest is {self.places[longest]}; {counted(len(self.held_out), 'row')} held out"
        )
        if self.dropped:
            yield f"{counted(len(self.dropped), 'row')} dropped: {_some(self.dropped)}"
        by_prompt: dict[tuple[int, ...], dict[tuple[int, ...], list[str]]] = defaultdict(lambda: defaultdict(list))
        for example, place in zip(self.examples, self.places, strict=True):
            by_prompt[example.prompt][example.answer].append(place)
        found = [list(of_prompt.values()) for of_prompt in by_prompt.values()]
        if unlike := [f"{places[0][0]} and {places[1][0]}" for places in found if len(places) > 1]:
            yield f"{counted(len(unlike), 'prompt')} with answers that differ, as in {_some(unlike)}"
        if again := [places[1] for of_prompt in found for places in of_prompt if len(places) > 1]:
            yield f"{counted(len(again), 'row')} more than once, as {_some(again)}"

    def rendered(self, tokenizer: TextTokenizer) -> str:
        """Returns the first row as the model reads it, with marks around what is supervised."""
        prompt, answer = _parts(self.examples[0])
        texts = [tokenizer.decode(part, skip_special=False) for part in (prompt, answer)]
        return f"{self.places[0]}:\n{texts[0]}⟦{texts[1]}⟧\nBetween ⟦ and ⟧: what is supervised."


def read_data(
    files: Sequence[Path],
    tokenizer: TextTokenizer,
    config: ModelConfig,
    *,
    form: RowFormat,
    validation: Path | None = None,
    weights: Sequence[float] = (),
    skip_bad: bool = False,
) -> FineTuningData:
    """Reads files of rows. weights: how often an epoch has each row of a file, for each file; none: once.

    ValueError for the first row that is malformed or does not fit the context, unless such rows are to be skipped, and
    where validation has a prompt that is trained on.
    """
    if not files:
        raise ValueError("there are no data: name at least one file")
    if weights and len(weights) != len(files):
        raise ValueError(f"{counted(len(weights), 'weight')} for {counted(len(files), 'file')}: give each file one")
    if bad := [one for one in weights if not 0 < one <= MAX_WEIGHT]:
        raise ValueError(f"a weight is {bad[0]:g}, must be above 0 and at most {MAX_WEIGHT:,}")
    if again := [file for at, file in enumerate(files) if file in files[:at]]:
        raise ValueError(f"{again[0]} is named twice: name it once, with a weight of 2 if that is meant")
    dropped: list[str] = []
    trained, weight_of = [], {}
    for at, file in enumerate(files):
        trained += (rows := _read(file, form, skip_bad, dropped))
        weight_of[str(file)] = weights[at] if weights else 1.0
    identity = {"rows": " and ".join(_digest(file, rows) for file, rows in _by_file(files, trained))}
    identity["validation"] = "some of the rows"
    held_out: list[TrainingRow] = []
    if validation is not None:
        held_out = _read(validation, form, skip_bad, dropped)
        identity["validation"] = _digest(validation, len(held_out))
        if both := {row.key for row in trained} & {row.key for row in held_out}:
            prompts = counted(len(both), "prompt")
            raise ValueError(f"{files[0]} has {prompts} of {validation} too, for instance {min(both)[:60]!r}")
    else:
        trained, held_out = hold_out(trained)
    if form != RowFormat():
        identity["form"] = str(form)
    if weights:
        identity["weights of files"] = ", ".join(f"{one:g}" for one in weights)
    encoded, faults = encode_rows(trained, tokenizer, config)
    unseen, more = encode_rows(held_out, tokenizer, config)
    if (faults or more) and not skip_bad:
        raise ValueError((faults or more)[0])
    dropped += faults + more
    if not encoded:
        raise ValueError(f"{', '.join(map(str, files))}: no row is left to train on: {_some(dropped)}")
    rows, examples = map(list, zip(*encoded, strict=True))
    return FineTuningData(rows, examples, [weight_of[str(row.file)] for row in rows], unseen, dropped, identity)


def _read(file: Path, form: RowFormat, skip_bad: bool, dropped: list[str]) -> list[TrainingRow]:
    good = []
    for row in read_training_rows(file, form):
        if not isinstance(row, BadRow):
            good.append(row)
        elif skip_bad:
            dropped.append(f"{file}, {row.fault}")
        else:
            raise ValueError(f"{file}, {row.fault}")
    return good


def _by_file(files: Sequence[Path], rows: Sequence[TrainingRow]) -> Iterator[tuple[Path, int]]:
    for file in files:
        yield file, sum(row.file == str(file) for row in rows)


def _digest(file: Path, count: int) -> str:
    """Returns what tells the file's content from another's; its name and place do not matter."""
    return f"of {count} lines (sha256 {hashlib.sha256(file.read_bytes()).hexdigest()[:12]})"


def _parts(example: Example) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return example.prompt, example.answer


def _some(sentences: Sequence[str]) -> str:
    more = f"; and {len(sentences) - MAX_SHOWN} more" if len(sentences) > MAX_SHOWN else ""
    return "; ".join(sentences[:MAX_SHOWN]) + more
