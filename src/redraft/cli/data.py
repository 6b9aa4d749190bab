"""`redraft data`: the data that training and measuring use, made anew."""

import json
from pathlib import Path
from typing import Annotated

import typer

from redraft.cli import options

app = typer.Typer(help="Make the data that training and measuring use.")


@app.callback()
def group() -> None:
    """Make the data that training and measuring use."""


@app.command("build")
def build(
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("data"),
    *,
    examples: Annotated[
        int, typer.Option(help="Test examples with seen phrasings, and as many with unseen ones.")
    ] = 250,
    sample: Annotated[int, typer.Option(help="Training records to write as a sample, for reading.")] = 100,
) -> None:
    """Write every task's test set, its tuning set and a sample of its endless training stream; always the same."""
    options.check_at_least(1, examples=examples)
    options.check_at_least(0, sample=sample)
    for package in ("faker", "codespell_lib"):
        options.require_package(package, "train")
    from redraft.bundled.data.families import FAMILIES, TUNING_EXAMPLES, TUNING_SEED
    from redraft.bundled.data.record_examples import DATA_SEED
    from redraft.utils.files import write_whole

    out.mkdir(parents=True, exist_ok=True)
    for name, family in FAMILIES.items():
        test: list[dict[str, object]] = [
            {
                "prompt": record.prompt,
                "answer": record.answer,
                "seen": seen,
                "held_out_values": family.odd_held_out and index % 2 == 1,
            }
            for seen in (True, False)
            for index, record in enumerate(family.test(examples, seen, 0))
        ]
        tuning: list[dict[str, object]] = [
            {
                "prompt": record.prompt,
                "answer": record.answer,
                "seen": True,
                "held_out_values": family.odd_held_out and index % 2 == 1,
            }
            for index, record in enumerate(family.test(TUNING_EXAMPLES, True, TUNING_SEED))
        ]
        train: list[dict[str, object]] = [
            {"prompt": record.prompt, "answer": record.answer}
            for record in (family.training(DATA_SEED, index) for index in range(sample))
        ]
        files: dict[str, list[dict[str, object]]] = {
            f"{name}.jsonl": test,
            f"{name}-tuning.jsonl": tuning,
            f"{name}-train-sample.jsonl": train,
        }
        for file, lines in files.items():
            write_whole(out / file, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
            print(f"{out / file}: {len(lines)} rows")
