"""`redraft batch status`: how far a job is."""

import json
from pathlib import Path
from typing import Annotated

import typer

from redraft.batch.status import read_status
from redraft.cli import options
from redraft.cli.batch.run import describe


def status(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A job's folder.")],
    *,
    as_json: options.JsonOption = False,
) -> None:
    """Show how far a job is, from anywhere, at any time."""
    told = read_status(folder)
    if as_json:
        print(json.dumps(told))
        return
    print(f"{told['state']}: {told['done']:,} of {told['rows']:,} rows")
    if rest := describe(told):
        print(rest)
