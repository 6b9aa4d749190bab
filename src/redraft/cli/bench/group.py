"""The `redraft bench` group."""

import typer

from redraft.cli.bench import load, memory, plan, speed

app: typer.Typer = typer.Typer(help="Measure and predict speed; each command ends in one JSON line.")


@app.callback()
def group() -> None:
    """Measure and predict speed; each command ends in one JSON line."""


app.command("step")(speed.step)
app.command("compare")(speed.compare)
app.command("load")(load.load)
app.command("memory")(memory.memory)
app.command("plan")(plan.plan)
