"""`redraft data`: rebuilds the data for training and evaluation."""

import itertools
from pathlib import Path
from typing import Annotated

import typer

from redraft.bundled.data.families import write_data
from redraft.bundled.data.wide.test_sets import CASES, write_wide_data
from redraft.cli import options
from redraft.utils.words import counted

app = typer.Typer(help="Build the data for training and evaluation.")


@app.command("build")
def build(
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("data"),
    *,
    examples: Annotated[
        int, typer.Option(help="Test examples with seen phrasings, and as many with unseen ones.")
    ] = 250,
    sample: Annotated[int, typer.Option(help="Training records to write as a sample for reading.")] = 100,
) -> None:
    """Write every task's test set, its tuning set and a sample of its training stream; always the same."""
    options.check_at_least(1, examples=examples)
    options.check_at_least(0, sample=sample)
    for package in ("faker", "codespell_lib"):
        options.require_package(package, "train")
    written = itertools.chain(write_data(out, examples, sample), write_wide_data(out, min(examples, CASES), sample))
    for path, rows in written:
        print(f"{path}: {counted(rows, 'row')}")
