"""The options of `redraft generate --rows`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

import redraft
from redraft.cli import options
from redraft.cli.streams import say
from redraft.utils.rows.formats import LINE_COLUMN, PARSERS
from redraft.utils.rows.tables import FORMATS, output_format
from redraft.utils.rows.template import parse_template

STREAM = Path("-")
"""Standard input as --rows, standard output as --output."""


@dataclass(frozen=True)
class RowOptions:
    """The options of `--rows`. Raises ValueError for those that do not go together, and without a file of rows."""

    file: Path | None
    template: str | None
    file_format: str | None
    id_column: str | None
    output: Path | None
    output_format: str | None
    fields: tuple[str, ...]
    token_ids: bool
    skip_bad: bool
    resume: bool

    def __post_init__(self) -> None:
        if self.file is None:
            given = {
                "--template": self.template, "--rows-format": self.file_format, "--id": self.id_column,
                "--output": self.output, "--format": self.output_format, "--fields": self.fields,
                "--token-ids": self.token_ids, "--skip-bad": self.skip_bad, "--resume": self.resume,
            }  # fmt: skip
            if names := [name for name, value in given.items() if value not in (None, (), False)]:
                raise ValueError(f"{' and '.join(names)} require{'s' * (len(names) == 1)} --rows FILE")
        if self.resume and self.output is None:
            raise ValueError("--resume requires --output FILE: standard output cannot be read again")
        if self.is_stream:
            check_stream(self.template, self.file_format, self.id_column)
        options.check_folder("output", self.output)

    @property
    def kind(self) -> str:
        """The format of the output, one of FORMATS. Raises ValueError for one that is unknown."""
        return output_format(self.output, self.output_format)

    @property
    def is_stream(self) -> bool:
        return self.file == STREAM

    @property
    def journal(self) -> Path | None:
        return None if self.output is None else self.output.with_name(f".{self.output.name}.partial")


def make_row_options(
    *,
    rows: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Answer every row of a file: lines of text, JSON lines (.jsonl) or a table (.csv, .tsv), each also as "
            ".gz; - for standard input.",
        ),
    ] = None,
    template: Annotated[
        str | None, typer.Option(help='The prompt for each row, with its {columns}; by default the column "prompt".')
    ] = None,
    rows_format: Annotated[
        str | None, typer.Option(help=f"{', '.join(PARSERS)}; by default the file's ending decides.")
    ] = None,
    id_column: Annotated[
        str | None,
        typer.Option(
            "--id", metavar="COLUMN", help='The column of each row\'s unique id, or line for none; by default "id".'
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the answers into this file, which appears when all are there; can be resumed. By default they "
            "are printed.",
        ),
    ] = None,
    format: Annotated[
        str | None, typer.Option(help=f"{', '.join(FORMATS)}; by default --output's ending decides, else jsonl.")
    ] = None,
    fields: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Read each answer as a JSON object, with a column for each of a,b,c."),
    ] = None,
    token_ids: Annotated[
        bool, typer.Option("--token-ids", help="Write the token ids of each row's answer too.")
    ] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Answer the other rows if some are bad, and say which; exit code 1.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with --output's run that was interrupted, or begin one.")
    ] = False,
) -> RowOptions:
    """Makes the options of `--rows` from the command line."""
    return RowOptions(
        file=rows,
        template=template,
        file_format=rows_format,
        id_column=id_column,
        output=None if output == STREAM else output,
        output_format=format,
        fields=() if fields is None else _parse_names(fields),
        token_ids=token_ids,
        skip_bad=skip_bad,
        resume=resume,
    )


def _parse_names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if "" in names or len(set(names)) != len(names):
        raise ValueError(f"--fields is {text!r}, must be different names with commas between them")
    return names


def check_stream(template: str | None, format: str | None, id_column: str | None) -> None:
    """Raises ValueError where columns are named of a standard input whose lines are read as text, not as a table."""
    if format is not None:
        return
    columns = [] if template is None else [name for _, name in parse_template(template) if name is not None]
    named = [f"--template names the column {name!r}" for name in columns if name != LINE_COLUMN]
    named += [f"--id names the column {id_column!r}"] * (id_column not in (None, LINE_COLUMN))
    if named:
        raise ValueError(
            f"{named[0]}, but standard input is read as lines of text: --rows-format csv reads a table, and so do tsv "
            "and jsonl"
        )


def tell_unasked(model: str, template: str, names: Sequence[str], *, quiet: bool) -> None:
    """Says which fields no prompt asks for, where the template itself is in a form that names fields."""
    prompt = "".join(text + ("" if column is None else f"{{{column}}}") for text, column in parse_template(template))
    task = redraft.read_card(model).task_of(prompt)
    # A row's column among the fields may name any.
    if task is None or not task.fields or any("{" in name for name in task.fields):
        return
    if unasked := [name for name in names if name not in task.fields]:
        asked = ", ".join(map(repr, task.fields))
        told = "its column" if len(unasked) == 1 else "their columns"
        say(
            f"--fields: no prompt asks for {', '.join(map(repr, unasked))}, so {told} will be empty: "
            f"the template asks for {asked}",
            quiet=quiet,
        )


with_row_options = options.receives(make_row_options)
"""Gives a command the options of `--rows`; it gets them, checked, as a RowOptions."""
