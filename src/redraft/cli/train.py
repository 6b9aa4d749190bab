"""`redraft train`: run a training recipe."""

import contextlib
import dataclasses
import hashlib
import json
import math
import random
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from redraft.cli import options

if TYPE_CHECKING:
    from redraft.training.loop import ExampleSource
    from redraft.training.recipe import Recipe
    from redraft.training.run.state import RunFolder
    from redraft.training.validation import Validator

VALIDATION_EXAMPLES = 128
VALIDATION_ANSWERS = 64

app = typer.Typer(help="Train a model from a recipe.")


@app.callback()
def group() -> None:
    """Train a model from a recipe."""


@dataclass(frozen=True)
class Run:
    """What every training command is asked: its settings, and how the process runs."""

    settings: dict[str, Any]
    threads: int | None
    stop_after: float


def training(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options of a run; it gets them, checked, as its first argument, a Run."""

    def with_options(
        *arguments: Any,
        steps: Annotated[
            int | None, typer.Option(help="Steps of the whole run; its learning rate falls over the last part.")
        ] = None,
        batch_size: Annotated[int | None, typer.Option(help="Examples a step.")] = None,
        learning_rate: Annotated[float | None, typer.Option(help="The highest learning rate.")] = None,
        compiled: Annotated[
            bool,
            typer.Option(
                "--compile", help="Compile the layers: a fifth faster after half a minute; needs a C++ compiler."
            ),
        ] = False,
        accumulate: Annotated[
            int | None, typer.Option(help="Work a step's examples off in so many parts, for less memory.")
        ] = None,
        ema: Annotated[
            float | None,
            typer.Option(help="Checkpoints hold the weights' moving average with this decay, for instance 0.999."),
        ] = None,
        validate_every: Annotated[
            int | None, typer.Option(help="Steps between validations; the best checkpoint is kept. 0: never.")
        ] = None,
        patience: Annotated[
            int | None, typer.Option(help="End the run after so many validations that bring nothing better.")
        ] = None,
        minutes: Annotated[
            float | None, typer.Option(help="Stop after so long, with a checkpoint to go on from.")
        ] = None,
        others: Annotated[
            list[str] | None,
            typer.Option("--set", metavar="NAME=VALUE", help="Any other setting of the recipe; can be repeated."),
        ] = None,
        threads: Annotated[int | None, typer.Option(help="CPU threads; all by default.")] = None,
        **own: Any,
    ) -> None:
        if minutes is not None and not 0 < minutes < math.inf:
            raise ValueError(f"--minutes is {minutes}, must be above 0")
        options.check_at_least(1, threads=threads)
        settings = options.without_none(
            steps=steps, batch_size=batch_size, learning_rate=learning_rate, accumulate=accumulate, ema=ema,
            validate_every=validate_every, patience=patience, compile=compiled or None,
        )  # fmt: skip
        for name, value in map(_setting, others or ()):
            if name in settings:
                raise ValueError(f"--set {name}={json.dumps(value)}: {name} is given twice")
            settings[name] = value
        stop_after = math.inf if minutes is None else minutes * 60
        command(Run(settings, threads, stop_after), *arguments, **own)

    return options.merge_signatures(command, with_options)


def _setting(text: str) -> tuple[str, object]:
    """A setting given as name=value, for instance unrolling=0.5 or matrix_factor=null."""
    from redraft.training.recipe import TrainingSettings

    name, _, value = text.partition("=")
    kinds = {
        one.name: getattr(one.type, "__name__", str(one.type))
        for one in dataclasses.fields(TrainingSettings)
        if one.name != "betas"
    }
    if name not in kinds:
        raise ValueError(f"--set {text}: there is no setting {name!r}; known: {', '.join(kinds)}")
    with contextlib.suppress(ValueError):
        found = json.loads(value)
        if "bool" in kinds[name] and isinstance(found, bool):
            return name, found
        if "bool" not in kinds[name] and type(found) in (int, float):
            return name, found
        if "None" in kinds[name] and found is None:
            return name, found
    raise ValueError(f"--set {text}: {value!r} is no value of {name}, a {kinds[name]}")


OutOption = Annotated[Path, typer.Option(help="Folder of the run; a run that is there goes on where it stood.")]
StartOption = Annotated[
    Path | None,
    typer.Option(help="Checkpoint whose weights a new run begins with, instead of random ones and an easy start."),
]


@app.command("extract")
@training
def extract(run: Run, *, out: OutOption = Path("runs/extract"), start: StartOption = None) -> None:
    """Extraction of named fields as JSON. Needs the extra: pip install 'redraft[train]'."""
    _from_recipe("extract", run, out, start)


@app.command("bundled")
@training
def bundled(run: Run, *, out: OutOption = Path("runs/bundled"), start: StartOption = None) -> None:
    """The bundled model: extraction, also of messy texts, normalising values, mending typos."""
    _from_recipe("bundled", run, out, start)


@app.command("rows")
@training
def rows(
    run: Run,
    *,
    file: Annotated[Path, typer.Argument(help='JSON lines, each an object with "prompt" and "answer".')],
    out: OutOption = Path("runs/rows"),
    start: Annotated[
        str, typer.Option(help='The checkpoint to fine-tune: "bundled", a folder, or a name on the hub.')
    ] = "bundled",
    epochs: Annotated[float, typer.Option(help="How often each row is trained on, where --steps does not say.")] = 3.0,
    validation: Annotated[
        Path | None, typer.Option(help="Rows to validate on; without, a twentieth of the rows is kept back for it.")
    ] = None,
) -> None:
    """Fine-tune a checkpoint on rows of your own: all its weights, in float32."""
    options.require_package("matplotlib", "train")
    from redraft.evaluation.cases import read_rows
    from redraft.generation import SamplerSettings
    from redraft.text import TextTokenizer
    from redraft.training import loop
    from redraft.training import recipe as recipes
    from redraft.training.data.rows import RowExamples, hold_out, make_examples, write_companions, write_rows
    from redraft.training.run.state import RunFolder
    from redraft.training.validation import make_validator
    from redraft.weights import fetch_config, read_config, read_generation_config, resolve

    trained, held_out = read_rows(file), read_rows(validation) if validation else []
    if both := {row.prompt for row in trained} & {row.prompt for row in held_out}:
        raise ValueError(f"{len(both)} prompts of {validation} are in {file} too, for instance {min(both)[:60]!r}")
    config = read_config(fetch_config(start))
    loop.check_memory(config)
    begin = resolve(start)
    tokenizer = TextTokenizer.load(begin)
    tokenizer.check_fits(config.vocab_size, begin)
    if not held_out:
        trained, held_out = hold_out(trained)
    examples = make_examples(trained, file, tokenizer, config)
    # Rows in a file are often sorted.
    shown = random.Random("validation").sample(held_out, min(VALIDATION_EXAMPLES, len(held_out)))
    unseen = make_examples(shown, validation or file, tokenizer, config)
    recipe = recipes.rows(config, len(examples), epochs, validation=bool(unseen), **run.settings)
    folder = RunFolder(out, out / "companions")
    with folder.locked():
        folder.claim(rows=_digest(file), validation=_digest(validation or file), start=str(begin.resolve()))
        print(
            f"{len(examples)} rows to train on, {len(unseen)} to validate on "
            f"(answering {min(len(unseen), VALIDATION_ANSWERS)}), {recipe.settings.steps} steps",
            flush=True,
        )
        tested = validation or out / "held_out.jsonl"
        if not validation:
            write_rows(tested, held_out)
        write_companions(begin, folder.companions, f"Fine-tuned from {start} on {file.name}.", trained)
        settings = SamplerSettings.from_generation_config(read_generation_config(begin) or {})
        validate = None
        if unseen:
            validate = make_validator(
                unseen, settings, answers=VALIDATION_ANSWERS, prompt_weight=recipe.settings.prompt_weight
            )
        source = RowExamples(examples, [row.line for row in trained], recipe.settings)
        _go(run, recipe, source, folder, validate, begin, ["rows", str(tested)])


def _digest(file: Path) -> str:
    return f"{file.name} (sha256 {hashlib.sha256(file.read_bytes()).hexdigest()[:12]})"


def _from_recipe(name: str, run: Run, out: Path, start: Path | None) -> None:
    for package in ("faker", "codespell_lib", "matplotlib"):
        options.require_package(package, "train")
    from redraft.bundled.data import families as bundled
    from redraft.bundled.data.extraction import task
    from redraft.text import TextTokenizer
    from redraft.training import loop
    from redraft.training import recipe as recipes
    from redraft.training.run.state import RunFolder
    from redraft.training.validation import make_validator

    make_recipe, make_source, card = {
        "extract": (recipes.extract, task.ExtractionExamples, task.CARD),
        "bundled": (recipes.bundled, bundled.BundledExamples, bundled.CARD),
    }[name]
    recipe = make_recipe(**run.settings)
    folder = RunFolder(out, out / "companions")
    if start is not None and not folder.checkpoints():
        loop.check_start(start, recipe)
    with folder.locked():
        folder.claim(recipe=name)
        task.prepare_companions(folder.companions, card)
        tokenizer = TextTokenizer.load(folder.companions)
        source = make_source(recipe.settings.batch_size, tokenizer, easy_start=start is None)
        validate = make_validator(
            source.validation(VALIDATION_EXAMPLES), task.SHIPPED_SETTINGS, answers=VALIDATION_ANSWERS,
            prompt_weight=recipe.settings.prompt_weight,
        )  # fmt: skip
        _go(run, recipe, source, folder, validate, start, ["extract"])


def _go(
    run: Run,
    recipe: "Recipe",
    source: "ExampleSource",
    folder: "RunFolder",
    validate: "Validator | None",
    start: Path | None,
    tested: list[str],
) -> None:
    """Trains, draws the report whatever happens, and says what was reached and with which command to test it."""
    import torch

    from redraft.training import loop
    from redraft.training.run.log import read_rows
    from redraft.training.run.report import REPORT_FILE, summarise, write_report

    if run.threads is not None:
        torch.set_num_threads(run.threads)
    try:
        loop.train(
            recipe, source, folder, report=lambda line: print(line, flush=True), validate=validate, start=start,
            stop_after=run.stop_after,
        )  # fmt: skip
    finally:
        # Where the disk is full, what the run ended with is what is to be read.
        with contextlib.suppress(OSError):
            if any(row["kind"] == "progress" for row in read_rows(folder.path)):
                write_report(folder.path)
    if not (folder.path / REPORT_FILE).exists():
        # It was over before, and made before runs had logs.
        print(shlex.join(["redraft", "eval", *tested, "--model", str(folder.checkpoints()[-1])]))
        return
    summary = summarise(folder.path)
    best = folder.checkpoint(summary["best"]["step"]) if summary["best"] else folder.checkpoints()[-1]
    print(shlex.join(["redraft", "eval", *tested, "--model", str(best)]))
    print(json.dumps(summary | {"checkpoint": str(best), "report": str(folder.path / REPORT_FILE)}))


@app.command("report")
def report(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Folder of a run, finished or not; of several to compare.")
    ] = None,
    *,
    out: Annotated[
        Path | None, typer.Option(help="Where a comparison is drawn, as SVG.  [default: comparison.svg]")
    ] = None,
) -> None:
    """Draw a run's losses, validations, learning rate and speed into an HTML file; print where it stands as JSON.

    Of several runs the losses are drawn over each other, by step and by minute.
    """
    options.require_package("matplotlib", "train")
    from redraft.training.run.report import summarise, write_comparison, write_report

    folders = runs or [Path("runs/extract")]
    if out is not None and len(folders) == 1:
        raise ValueError("--out is for comparing several runs; the report of one stays in its folder")
    summaries = [summarise(folder) for folder in folders]
    drawn = write_report(folders[0]) if len(folders) == 1 else write_comparison(folders, out or Path("comparison.svg"))
    for summary in summaries:
        print(json.dumps(summary | {"report": str(drawn)}))
