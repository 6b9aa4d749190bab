"""`redraft bench`: how fast it is, and how fast it should be."""

import typer

from redraft.cli.bench import load as bench_load
from redraft.cli.bench import memory as bench_memory
from redraft.cli.bench import plan as bench_plan
from redraft.cli.bench import speed as bench_speed

app: typer.Typer = typer.Typer(help="Measure and predict speed; each command ends in one JSON line.")


@app.callback()
def group() -> None:
    """Measure and predict speed; each command ends in one JSON line."""


app.command("step")(bench_speed.step)
app.command("compare")(bench_speed.compare)
app.command("load")(bench_load.load)
app.command("memory")(bench_memory.memory)
app.command("plan")(bench_plan.plan)
