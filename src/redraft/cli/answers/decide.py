"""`redraft decide`: typed questions about a text, answered by probabilities."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from redraft.cli import options
from redraft.cli.answers.answer_warnings import say_warnings
from redraft.cli.answers.generate import read_prompt
from redraft.cli.output import show_table

USED_SETTINGS = ("seed", "canvas_length")
"""Those of the sampler that a decision has a use for."""


@options.with_model_options
def decide(
    model_options: options.ModelOptions,
    text: Annotated[str, typer.Argument(help="The text; - for standard input.")],
    *,
    ask: Annotated[str | None, typer.Option(help="The question; yes or no, unless it has labels or levels.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="A label that may be chosen; repeatable.")] = None,
    level: Annotated[list[str] | None, typer.Option(help="A level, the lowest first; repeatable.")] = None,
    questions: Annotated[
        Path | None, typer.Option(help="A file with questions by name, as JSON: type, instructions, criteria.")
    ] = None,
    passes: Annotated[int, typer.Option(help="Denoising passes, 1 to 4.")] = 1,
    orders: Annotated[int, typer.Option(help="Orders of the labels to average over.")] = 1,
    draws: Annotated[int, typer.Option(help="Draws of the noise to average over.")] = 1,
    label_temperature: Annotated[float, typer.Option(help="The temperature that the labels are read under.")] = 1.0,
    as_json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Decide questions about a text: which label, yes or no, how much.

    Nothing is written: the probabilities of the labels are read off a canvas.
    """
    if (ask is None) == (questions is None):
        raise ValueError("give either --ask QUESTION or --questions FILE")
    if label and level:
        raise ValueError("give either --label or --level, not both: labels have no order, levels have one")
    if (label or level) and ask is None:
        raise ValueError("--label and --level belong to --ask: name those of --questions in its file, as criteria")
    if unused := [name for name in model_options.given_settings if name not in USED_SETTINGS]:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in unused)
        raise ValueError(f"a decision has no use for {named}: leave it out; --label-temperature is that of the labels")
    text = read_prompt(text)
    # It imports torch, for which help need not wait.
    from redraft.decisions import question_of, warnings_of
    from redraft.utils.json_files import read_json_object

    if questions is not None:
        given = read_json_object(questions)
    else:
        kind, criteria = ("score", level) if level else ("choice", label) if label else ("yes_no", None)
        given = {"answer": {"type": kind, "instructions": ask, "criteria": criteria}}
    asked = {name: question_of(name, one) for name, one in given.items()}
    model = model_options.load(quiet=quiet)
    settings = {"seed": 0} | model_options.settings
    found = model.decide(
        text, asked, passes=passes, orders=orders, draws=draws, temperature=label_temperature,
        **{name: value for name, value in settings.items() if name in USED_SETTINGS},
    )  # fmt: skip
    say_warnings(warnings_of(found), quiet=quiet)
    if as_json:
        print(json.dumps({name: dataclasses.asdict(one) for name, one in found.items()}, ensure_ascii=False))
        return
    for name, one in found.items():
        ranked = sorted(one.probabilities.items(), key=lambda pair: -pair[1])
        score = [] if one.score is None else [("score", f"{one.score:.2f}")]
        shares = ((f"  {text}", f"{share:.3f}") for text, share in ranked)
        show_table([(name, one.label), *score, *shares, ("log mass", f"{one.log_mass:.1f}")])
