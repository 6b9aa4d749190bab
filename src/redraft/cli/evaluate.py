"""`redraft eval`: how good a checkpoint is."""

import json
from pathlib import Path
from typing import Annotated

import typer

from redraft.cli import options

app = typer.Typer(help="Measure how good a checkpoint is.")


@app.callback()
def group() -> None:
    """Measure how good a checkpoint is."""


@app.command("extract")
def extract(
    *,
    model: options.ModelOption = "bundled",
    device: options.DeviceOption = "auto",
    dtype: options.DtypeOption = "auto",
    examples: Annotated[int, typer.Option(help="Examples with seen phrasings, and as many with unseen ones.")] = 250,
    steps: options.Steps = None,
    entropy_bound: options.EntropyBound = None,
    t_min: options.TMin = None,
    t_max: options.TMax = None,
    temperature: options.Temperature = None,
    seed: Annotated[int, typer.Option(help="Every example is answered with this seed.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
    failures: Annotated[
        Path | None, typer.Option(help="Write the examples it got wrong to this file, a JSON line each.")
    ] = None,
) -> None:
    """Extraction of named fields as JSON: 500 examples, half of them phrased as training never saw."""
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    import redraft
    from redraft.measure import extraction

    settings = options.given(
        steps=steps, entropy_bound=entropy_bound, t_min=t_min, t_max=t_max, temperature=temperature, seed=seed
    )
    options.check_settings(settings)
    options.check_at_least(1, examples=examples)
    cases = extraction.read_cases(per_split=examples)
    if failures is not None and not failures.parent.is_dir():
        raise ValueError(f"--failures: there is no folder {str(failures.parent)!r}")
    loaded = redraft.load(model, device=device, dtype=dtype)

    def answer(prompt: str) -> tuple[str, redraft.Generation]:
        result = loaded.generate(prompt, **settings)
        return result.text, result.generation

    def is_long(text: str) -> bool:
        # The token that ends it is part of an answer.
        return len(loaded.tokenizer.encode(text)) + 1 > loaded.transformer.config.canvas_length

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("extract", total=len(cases))
        outcomes = extraction.run_cases(cases, answer, is_long, lambda _: progress.advance(task))
    summary = extraction.summarise(outcomes) | {"model": model, "settings": settings}
    if failures is not None:
        wrong = [
            {
                "prompt": outcome.case.prompt,
                "wanted": outcome.case.answer,
                "got": outcome.text,
                "seen": outcome.case.seen,
            }
            for outcome in outcomes
            if not outcome.exact
        ]
        failures.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in wrong), encoding="utf-8")
    if as_json:
        print(json.dumps(summary))
        return
    table = Table(show_header=False)
    for key, value in summary.items():
        table.add_row(key, str(value))
    Console().print(table)
