"""`redraft quantize`: a smaller copy of a checkpoint."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

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
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    # Without a terminal there is no bar, so that an error is one line there too.
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"to {to}", total=None)
        quantize_checkpoint(folder, target, to, lambda done, total: progress.update(task, completed=done, total=total))
    size = sum(file.stat().st_size for file in target.glob("*.safetensors"))
    print(f"{target}: {size / 1e6:,.1f} MB; redraft generate --model {target}")
