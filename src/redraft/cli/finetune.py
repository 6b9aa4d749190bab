"""`redraft finetune`: a checkpoint made good at what rows of your own show, by an adapter or in all its weights."""

from pathlib import Path
from typing import Annotated, Any

import typer

from redraft.cli import options
from redraft.cli.train import TrainingOptions, print_result, with_training_options
from redraft.text import TextTokenizer
from redraft.training import LoRASettings, finetune
from redraft.training.data.dataset import read_data
from redraft.training.data.files import TURNS, RowFormat
from redraft.training.finetuning import HELD_OUT_FILE
from redraft.training.settings import TARGET_GROUPS
from redraft.weights.config.file import read_config
from redraft.weights.fetch import resolve

METHODS = ("lora", "full")
DEFAULTS = LoRASettings()


@with_training_options
def command(
    run: TrainingOptions,
    *,
    files: Annotated[list[Path], typer.Argument(metavar="DATA...", help="JSON lines, CSV, TSV or Parquet.")],
    out: Annotated[Path, typer.Option(help="Folder of the run; a run that is there is resumed.")] = Path(
        "runs/finetune"
    ),
    base: Annotated[
        str, typer.Option(help='The checkpoint to fine-tune: "bundled", a folder, or a name on the hub.')
    ] = "bundled",
    template: Annotated[
        str | None, typer.Option(help='The prompt, with {columns} of a row; by default the column "prompt".')
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            help='What the answer is: a column, or a JSON object of several; by default "answer" or "completion".'
        ),
    ] = None,
    turns: Annotated[
        str, typer.Option(help="Of a conversation: all turns of the assistant are supervised, or the last.")
    ] = TURNS[0],
    weights: Annotated[
        str | None, typer.Option(help="How often an epoch has each row of a file: a number for each, with commas.")
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out rows that cannot be used, instead of ending with an error.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what the rows are, show one as the model reads it, and stop.")
    ] = False,
    method: Annotated[
        str, typer.Option(help="lora: a small adapter beside the checkpoint; full: all its weights.")
    ] = METHODS[0],
    rank: Annotated[int, typer.Option(help="Rank of the adapter.")] = DEFAULTS.rank,
    alpha: Annotated[float, typer.Option(help="The adapter's product counts alpha / rank times.")] = DEFAULTS.alpha,
    dropout: Annotated[float, typer.Option(help="Share of the adapter's inputs that are left out.")] = DEFAULTS.dropout,
    rslora: Annotated[bool, typer.Option("--rslora", help="Its product counts alpha / √rank times.")] = False,
    targets: Annotated[
        str, typer.Option(help=f"What it adapts: {', '.join(TARGET_GROUPS)}, or names of matrices; with commas.")
    ] = ",".join(DEFAULTS.targets),
    epochs: Annotated[
        float | None,
        typer.Option(help="How often each row is trained on, unless --steps is given; by default, by their number."),
    ] = None,
    replay: Annotated[
        float | None,
        typer.Option(
            help="Share of the examples from the checkpoint's own data, against forgetting; 0.2 with --method full."
        ),
    ] = None,
    validation: Annotated[
        Path | None, typer.Option(help="Rows to validate on; by default, some of 20 or more rows are held out.")
    ] = None,
) -> None:
    """Fine-tune a checkpoint on rows of your own: a small adapter beside it, or all its weights.

    A row has a prompt and an answer, or the messages of a conversation, or columns for --template and --columns.
    Steps, batch, learning rate and validation follow from the number of rows, unless you give them.
    """
    if method not in METHODS:
        raise ValueError(f"--method is {method!r}, must be {' or '.join(METHODS)}")
    named = tuple(filter(None, (one.strip() for one in targets.split(","))))
    chosen = LoRASettings(rank=rank, alpha=alpha, dropout=dropout, rslora=rslora, targets=named)
    if method == "full" and chosen != DEFAULTS:
        raise ValueError("--rank, --alpha, --dropout, --rslora and --targets are an adapter's: leave --method full out")
    needs_data = replay or (replay is None and method == "full")
    for package in ("matplotlib", *(("faker", "codespell_lib") if needs_data else ())):
        options.require_package(package, "train")
    lora = chosen if method == "lora" else None
    named_columns = tuple(filter(None, (one.strip() for one in (columns or "").split(","))))
    data: dict[str, Any] = {
        "form": RowFormat(template=template, columns=named_columns, turns=turns),
        "weights": options.parse_numbers("weights", weights, float) if weights else (),
        "skip_bad": skip_bad,
        "validation": validation,
    }
    if dry_run:
        folder = resolve(base)
        tokenizer, config = TextTokenizer.load(folder), read_config(folder)
        read = read_data(files, tokenizer, config, **data)
        print(*read.describe(config.canvas_length), read.rendered(tokenizer), sep="\n")
        return
    with run.watchers(out) as watchers:
        result = finetune(
            files, out, base=base, lora=lora, epochs=epochs, replay=replay, watchers=watchers,
            **data, **run.run, **run.settings,
        )  # fmt: skip
    tested = out / HELD_OUT_FILE
    print_result(result, ["rows", str(tested)] if tested.exists() else None, base=None if lora is None else base)
