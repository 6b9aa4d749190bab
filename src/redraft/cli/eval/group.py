"""The `redraft eval` group."""

import typer

from redraft.cli.eval import evaluate, frontier

app: typer.Typer = typer.Typer(help="Measure how good a checkpoint is.")


@app.callback()
def group() -> None:
    """Measure how good a checkpoint is."""


app.command("frontier")(frontier.frontier)
for _name, _help in (
    ("extract", "Extraction of named fields as JSON: 500 examples, half phrased as training never saw."),
    ("normalize", "Dates, times, amounts, phone numbers and quantities in the format you ask for."),
    ("repair", "Sentences with typos; the score of copying them is shown too."),
):
    app.command(_name, help=_help)(evaluate.task_command(_name))
app.command("wide")(evaluate.wide)
app.command("rows")(evaluate.rows)
app.command("sudoku")(evaluate.sudoku)
app.command("needle")(evaluate.needle)
