"""`redraft bench batch`: what a job costs beside the engine that answers its rows."""

import itertools
from typing import Annotated

import typer

from redraft.benchmark.load.batch import measure_batch
from redraft.benchmark.load.prompts import filler_prompts, sample_prompts
from redraft.benchmark.timing import describe_machine
from redraft.cli import options
from redraft.cli.output import JsonLineOption, format_spread, report
from redraft.utils.words import counted

LONG = 2000
"""More rows than this take minutes, in which what disturbs a round evens out."""


@options.with_model_options
def batch(
    model_options: options.ModelOptions,
    *,
    rows: Annotated[int, typer.Option(help="Rows of the job.")] = 500,
    rounds: Annotated[
        int | None, typer.Option(help=f"Rounds, of each side one; by default 3, beyond {LONG:,} rows 1.")
    ] = None,
    words: Annotated[
        int | None,
        typer.Option(
            help="Filler text of so many words as prompts, instead of the test set extract, whose 500 are repeated."
        ),
    ] = None,
    as_json: JsonLineOption = False,
) -> None:
    """Rows a second of a job with its journal and its results, over those of the engine alone."""
    rounds = (3 if rows <= LONG else 1) if rounds is None else rounds
    options.check_at_least(1, rows=rows, rounds=rounds, words=words)
    options.require_package("fastapi", "batch")
    prompts = sample_prompts("extract", rows, repeats=True) if words is None else list(
        itertools.islice(filler_prompts(words, words), rows)
    )  # fmt: skip
    machine, model = describe_machine(), model_options.load()
    settings = {"seed": 0} | model_options.settings
    found, tokens = measure_batch(model, prompts, settings, rounds=rounds)
    rates = {"engine": found.theirs, "job": found.ours}
    facts = {
        "bench": "batch", "model": model.name, "precision": model_options.precision, "rows": rows, "settings": settings,
        "answer_tokens": tokens, "rows_per_second": rates, "ratio": found.ratio, "machine": machine,
    }  # fmt: skip
    report(
        facts, title=f"{counted(rows, 'row')}: {model.name}", columns=("", "rows/s"), as_json=as_json,
        rows=[*((name, format_spread(rate, ".1f")) for name, rate in rates.items()),
              ("ratio", format_spread(found.ratio, ".1%"))],
    )  # fmt: skip
