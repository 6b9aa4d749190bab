"""`redraft merge`: a plain checkpoint from a model and its adapter."""

from pathlib import Path
from typing import Annotated

import typer

from redraft.cli.output import bytes_progress
from redraft.weights.adapters.merge import merge_adapter
from redraft.weights.fetch import resolve


def merge(
    adapter: Annotated[str, typer.Argument(help="The adapter's folder, or that of the run that trained it.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="Folder to write; it must be new or empty.")],
    *,
    base: Annotated[
        str, typer.Option(help='The model that it was trained on: "bundled", a folder, or a name on the hub.')
    ] = "bundled",
) -> None:
    """Write the model that a base is with an adapter, as a checkpoint of its own."""
    with bytes_progress("merging") as progress:
        merge_adapter(resolve(base), resolve(adapter, is_adapter=True), target, progress)
    size = sum(file.stat().st_size for file in target.glob("*.safetensors"))
    print(f"{target}: {size / 1e6:,.1f} MB; redraft generate --model {target}")
