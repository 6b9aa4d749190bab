"""`redraft calibrate` and `redraft eval trust`: the number of the trust marks, made and measured."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

import redraft
from redraft.cli import options
from redraft.cli.output import show_table, summary_rows
from redraft.cli.streams import loading, say
from redraft.evaluation.cases import read_rows
from redraft.evaluation.scores import score_answer
from redraft.evaluation.trust.evidence import WAYS, Evidence, TrustSet, gather, shipped_sets
from redraft.evaluation.trust.fitting import draw, fit, summarise
from redraft.generation.modes import ANSWERING_MODES
from redraft.text.trust.calibration import TRUST_FILE, Calibration, TrustModels, write_calibration
from redraft.utils.files import write_whole
from redraft.weights.fetch import resolve

RowsOption = Annotated[
    Path | None,
    typer.Option(help='JSON lines with "prompt" and "answer", instead of the sets that are shipped for its recipe.'),
]
EvidenceOption = Annotated[
    Path | None, typer.Option(help="File that keeps what is measured of each case; an existing one is continued.")
]


def calibrate(
    model: Annotated[str, typer.Argument(help="The checkpoint: its folder, or bundled.")],
    *,
    rows: RowsOption = None,
    evidence: EvidenceOption = None,
    as_json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Fit the number of a checkpoint's trust marks on tuning sets, and write it beside its weights.

    For answers of canvases and for those that are written causally.
    """
    folder = resolve(model)
    sets = _sets(model, rows, evidence, is_tuning=True)
    with loading(model, quiet=quiet):
        loaded = redraft.load(model)
    # What an earlier calibration says is no matter: only facts are gathered.
    found = {way: _gather(loaded, sets, way, evidence) for way in WAYS}
    calibration = Calibration(dict(_fitted(found)), tuple(one.name for one in sets))
    if not calibration.models:
        raise ValueError(f"{model} cannot be calibrated on {', '.join(calibration.sets)}")
    write_calibration(folder, calibration)
    told = {
        way: summarise(found[way], models)["groups"]["all"]  # type: ignore[index]
        for way, models in calibration.models.items()
    }
    summary = {"model": model, "file": str(folder / TRUST_FILE), "groups": told}
    print(json.dumps(summary)) if as_json else show_table(summary_rows(summary))


def trust(
    *,
    model: options.ModelOption = "bundled",
    mode: Annotated[
        str | None,
        typer.Option(
            help="diffusion; autoregressive, verified or auto, whose numbers are the same. The card's if unset."
        ),
    ] = None,
    rows: RowsOption = None,
    evidence: EvidenceOption = None,
    picture: Annotated[Path | None, typer.Option(help="Draw accuracy over coverage into this SVG file.")] = None,
    as_json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """How right the trust marks are: calibration error, and accuracy of the most trusted answers, on test sets."""
    if mode not in (None, *ANSWERING_MODES):
        raise ValueError(f"--mode is {mode!r}, must be one of {', '.join(ANSWERING_MODES)}")
    options.check_folder("picture", picture)
    if picture is not None:
        options.require_package("matplotlib", "eval")
    sets = _sets(model, rows, evidence, is_tuning=False)
    with loading(model, quiet=quiet):
        loaded = redraft.load(model)
    mode = mode or loaded.usual_mode
    way = "diffusion" if mode == "diffusion" else "causal"
    if loaded.calibration is None or (models := loaded.calibration.models.get(way)) is None:
        raise ValueError(f"{model} is not calibrated for answers of this mode: run 'redraft calibrate {model}'")
    found = _gather(loaded, sets, way, evidence)
    summary = {"task": "trust", **summarise(found, models), "model": model, "mode": mode}
    if picture is not None:
        write_whole(picture, draw(found, models, f"{model}, {len(found)} answers"))
    print(json.dumps(summary)) if as_json else show_table(summary_rows(summary))


def _fitted(found: Mapping[str, list[Evidence]]) -> Iterator[tuple[str, TrustModels]]:
    """Yields the models of each way of writing; says why there are none of one."""
    for way, evidence in found.items():
        try:
            yield way, fit(evidence)
        except ValueError as error:
            say(f"no number for {way} answers: {error}")


def _sets(model: str, rows: Path | None, evidence: Path | None, *, is_tuning: bool) -> list[TrustSet]:
    options.check_folder("evidence", evidence)
    if rows is not None:
        return [TrustSet(str(rows), read_rows(rows), score_answer)]
    recipe = redraft.read_card(model).recipe
    if recipe == "bundled":
        options.require_package("rapidfuzz", "eval")
    return shipped_sets(recipe, is_tuning=is_tuning)


def _gather(model: "redraft.Model", sets: Sequence[TrustSet], way: str, file: Path | None) -> list[Evidence]:
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(way, total=sum(len(one.cases) for one in sets))
        return gather(model, sets, way, file, lambda: progress.advance(task))
