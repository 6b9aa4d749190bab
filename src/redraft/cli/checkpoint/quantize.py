"""`redraft quantize`: a smaller copy of a checkpoint."""

from pathlib import Path
from typing import Annotated

import typer

from redraft.cli.output import bytes_progress
from redraft.weights.fetch import resolve
from redraft.weights.quantize import check_quantize, quantize_checkpoint


def quantize(
    source: Annotated[str, typer.Argument(metavar="SRC", help='"bundled", a folder, or a name on the hub.')],
    target: Annotated[Path, typer.Argument(metavar="DST", help="Folder to write; it must be new or empty.")],
    *,
    to: Annotated[str, typer.Option(help="int8 or int4.")],
) -> None:
    """Write a smaller copy of a checkpoint, in 8 or 4 bits.

    The layers' matrices are quantized. Norms, routers and the embedding stay in 16 bits; unused tensors are copied.
    """
    check_quantize(target, to)
    folder = resolve(source)
    with bytes_progress(f"to {to}") as progress:
        quantize_checkpoint(folder, target, to, progress)
    size = sum(file.stat().st_size for file in target.glob("*.safetensors"))
    print(f"{target}: {size / 1e6:,.1f} MB; redraft generate --model {target}")
