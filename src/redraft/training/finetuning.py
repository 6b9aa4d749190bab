"""Fine-tuning a checkpoint on rows of prompts and answers."""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from redraft.diffusion.settings import SamplerSettings
from redraft.text import TextTokenizer
from redraft.training.data.dataset import read_data
from redraft.training.data.examples import ExampleSource
from redraft.training.data.files import RowFormat
from redraft.training.data.rows import (
    Replay,
    RowExamples,
    write_adapter_card,
    write_companions,
    write_rows,
)
from redraft.training.plan import REPLAY_SHARE, check_memory, check_replay, describe_plan, plan_settings
from redraft.training.recipe import Recipe, TrainingData
from redraft.training.run.answers import Texts
from redraft.training.run.processes import from_first
from redraft.training.run.session import TrainingResult, run_recipe
from redraft.training.run.state import RunFolder
from redraft.training.run.watchers import Watcher
from redraft.training.settings import LoRASettings
from redraft.weights.adapters.files import adapter_base, find_adapter
from redraft.weights.card import read_card
from redraft.weights.config.file import parse_quantization, read_config, read_config_json, read_generation_config
from redraft.weights.fetch import fetch_config, resolve
from redraft.weights.placement import pick_device

ReplaySources = Mapping[str, Callable[[int, TextTokenizer], ExampleSource]]
"""By a recipe's name, what makes the examples of its data for steps of so many."""
LORA, ROW_FORMAT = LoRASettings(), RowFormat()
HELD_OUT_FILE = "held_out.jsonl"
"""In the run's folder: the rows that can be validated on, as `redraft eval rows` reads them; none with tools."""


def finetune(
    rows: Path | str | Sequence[Path | str],
    out: Path | str,
    *,
    base: Path | str = "bundled",
    lora: LoRASettings | None = LORA,
    validation: Path | str | None = None,
    form: RowFormat = ROW_FORMAT,
    weights: Sequence[float] = (),
    skip_bad: bool = False,
    epochs: float | None = None,
    replay: float | None = None,
    replay_sources: ReplaySources | None = None,
    stop_after: float = math.inf,
    device: torch.device | str = "cpu",
    report: Callable[[str], None] = print,
    watchers: Sequence[Watcher] = (),
    **settings: Any,
) -> TrainingResult:
    """Fine-tunes a checkpoint on the rows of some files, in the folder `out`; a run that is there is resumed.

    rows: JSON lines, CSV, TSV or Parquet. form: how rows are made of their columns. weights: how often an epoch has
    each row of a file. skip_bad: rows that cannot be used are left out, and told, instead of being an error. base:
    "bundled", a folder, or a name on the hub. lora: the adapter that is trained beside its weights; None: all of them
    are trained. validation: rows to validate on; None holds some of the rows out. epochs: how often each row is trained
    on unless `steps` is given; None goes by the number of rows. replay: share of the examples that come from the data
    of the checkpoint's own recipe, against forgetting; None is a fifth, or with an adapter, which leaves the checkpoint
    as it is, 0; nothing is replayed if its card names none. replay_sources: that data by the recipe's name; None: of
    redraft's own recipes. stop_after: seconds. device: also "auto". report: receives the lines of progress. watchers:
    are told of each step. settings: any of TrainingSettings; what is not given follows from the number of rows.
    ValueError for bad rows and settings, and if the model does not fit into memory, before any work.
    """
    if replay is None:
        replay = REPLAY_SHARE if lora is None else 0.0
    check_replay(replay)
    if (adapter := find_adapter(base)) is not None:
        raise ValueError(
            f"{adapter} is an adapter, not a model to train beside or from: give its base "
            f"({adapter_base(adapter) or 'which it does not name'}), or merge the two first (redraft merge)"
        )
    config = read_config(fetch_config(base))
    device = pick_device(device) if device == "auto" else torch.device(device)
    if device.type == "cpu":
        described = fetch_config(base)
        check_memory(config, lora, parse_quantization(read_config_json(described), folder=described))
    folder = resolve(base)
    tokenizer = TextTokenizer.load(folder)
    tokenizer.check_fits(config.vocab_size, folder)
    files = [Path(rows)] if isinstance(rows, str | Path) else [Path(one) for one in rows]
    read = read_data(
        files, tokenizer, config, form=form, weights=weights, skip_bad=skip_bad,
        validation=None if validation is None else Path(validation),
    )  # fmt: skip
    known = read_card(folder).recipe
    source = _own_sources().get(known) if replay_sources is None else replay_sources.get(known)
    share = 0.0 if source is None else replay
    chosen = plan_settings(
        read.epoch_size, held_out=len(read.held_out), replay=share, epochs=epochs, is_lora=lora is not None, **settings
    )
    # The rows of a file are often sorted.
    count = min(chosen.validation_examples, len(read.held_out))
    sampled = random.Random("validation").sample(read.held_out, count)
    unseen = [example for _, example in sampled]
    texts = Texts([row.prompt for row, _ in sampled], tokenizer.decode)
    sampler = SamplerSettings.from_generation_config(read_generation_config(folder) or {})

    def data(run: RunFolder) -> TrainingData:
        tell = from_first(report)
        if share:
            told = f"{share:.0%} of them replayed from {known}"
        else:
            told = "none replayed" if source or not replay else f"none replayed: nothing is known of {base}'s own data"
        tell(describe_plan(len(read.examples), chosen, validated=len(unseen), replay=told))
        for line in read.describe(config.canvas_length):
            tell(line)
        if testable := [row for row, _ in read.held_out if row.is_text]:
            write_rows(run.path / HELD_OUT_FILE, testable)
        purpose = f"Fine-tuned from {base} on {', '.join(file.name for file in files)}."
        if lora is None:
            write_companions(folder, run.companions, purpose, read.rows, recipe=known)
        else:
            tell(str(lora))
            write_adapter_card(run.companions, purpose, read.rows)
        mixed = None
        if source is not None and share:
            mixed = Replay(share, source(math.ceil(chosen.batch_size * share), tokenizer))
        drawn = RowExamples(
            read.examples, read.places, weights=read.weights, batch_size=chosen.batch_size, seed=chosen.seed,
            replay=mixed,
        )  # fmt: skip
        return TrainingData(drawn, unseen, drawn.describe, texts)

    identity = read.identity | {
        "base": str(folder.resolve()),
        "replay": f"{share:g}",
        "weights": "all" if lora is None else str(lora),
    }
    recipe = Recipe(model=config, settings=chosen, data=data, sampler=sampler, lora=lora, identity=identity)
    return run_recipe(recipe, out, start=folder, stop_after=stop_after, device=device, report=report, watchers=watchers)


def _own_sources() -> ReplaySources:
    # The recipes are made of this room's parts, so they can only be imported later.
    from redraft.bundled.recipe import REPLAY_SOURCES

    return REPLAY_SOURCES
