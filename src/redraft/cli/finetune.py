"""`redraft finetune`: a checkpoint made good at what rows of your own show, by an adapter or in all its weights."""

from pathlib import Path
from typing import Annotated

import typer

from redraft.cli import options
from redraft.cli.train import TrainingOptions, print_result, with_training_options
from redraft.training import LoRASettings, finetune
from redraft.training.finetuning import HELD_OUT_FILE
from redraft.training.settings import TARGET_GROUPS

METHODS = ("lora", "full")
DEFAULTS = LoRASettings()


@with_training_options
def command(
    run: TrainingOptions,
    *,
    file: Annotated[Path, typer.Argument(metavar="DATA", help='JSON lines, each with "prompt" and "answer".')],
    out: Annotated[Path, typer.Option(help="Folder of the run; a run that is there is resumed.")] = Path(
        "runs/finetune"
    ),
    base: Annotated[
        str, typer.Option(help='The checkpoint to fine-tune: "bundled", a folder, or a name on the hub.')
    ] = "bundled",
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
    """Fine-tune a checkpoint on rows of your own: a small adapter beside it, or all its weights, in float32.

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
    result = finetune(
        file, out, base=base, lora=lora, validation=validation, epochs=epochs, replay=replay, **run.run, **run.settings
    )
    tested = validation or out / HELD_OUT_FILE
    print_result(result, ["rows", str(tested)] if tested.exists() else None, base=None if lora is None else base)
