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
    """Write the extraction task's test set and a sample of its endless training stream; the same every time."""
    options.check_at_least(1, examples=examples)
    options.check_at_least(0, sample=sample)
    from redraft.training.extraction.records import held_out_records, training_record
    from redraft.training.extraction.task import DATA_SEED

    out.mkdir(parents=True, exist_ok=True)
    rows = [
        {"prompt": record.prompt, "answer": record.answer, "seen": seen, "held_out_values": index % 2 == 1}
        for seen in (True, False)
        for index, record in enumerate(held_out_records(examples, seen=seen))
    ]
    train = [
        {"prompt": record.prompt, "answer": record.answer}
        for record in (training_record(DATA_SEED, i) for i in range(sample))
    ]
    for name, lines in (("extract.jsonl", rows), ("train-sample.jsonl", train)):
        temporary = out / f".{name}.partial"
        temporary.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
        temporary.replace(out / name)
        print(f"{out / name}: {len(lines)} rows")
