"""`redraft eval`, its tasks: how good a checkpoint is."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.console import Console
from rich.progress import Progress

from redraft.cli import options
from redraft.cli.output import show_table, summary_rows
from redraft.evaluation.cases import Case, read_rows
from redraft.evaluation.evaluate import evaluate, failed_rows, summarise
from redraft.evaluation.filling import FillSubject, with_one_open
from redraft.evaluation.needle import check_needle, needle_cases, score_needle
from redraft.evaluation.scores import score_answer
from redraft.evaluation.subject import EndpointSubject, ModelSubject, Subject
from redraft.evaluation.sudoku import PUBLISHED, PinnedSudoku, score_sudoku, sudoku_cases
from redraft.evaluation.tasks import SCORES, TASKS, WIDE_SETS, EvaluationTask, Score
from redraft.generation.modes import Mode

ExamplesOption = Annotated[int, typer.Option(help="Examples with seen wording, and as many with unseen wording.")]


@dataclasses.dataclass(frozen=True)
class EvaluationOptions:
    """The options of every task: what is evaluated, and how the result is printed and kept."""

    model: options.ModelOptions
    endpoint: str | None
    api_key_env: str | None
    as_json: bool
    failures: Path | None

    def subject(self, mode: str | None = None, *, is_constrained: bool = False, is_grounded: bool = False) -> Subject:
        """Returns the subject that is named; refuses incompatible options before a model is loaded."""
        if self.endpoint is None and self.api_key_env is not None:
            raise ValueError("--api-key-env has no effect without --endpoint")
        settings = self.model.settings_in(mode)
        if (is_constrained or is_grounded) and self.endpoint is not None:
            option = "--grounded" if is_grounded else "--constrained"
            raise ValueError(f"{option} holds the answers of a model in this process; leave out --endpoint")
        # One seed for all examples, and unless it is given the same every time.
        settings = {"seed": 0} | settings
        if self.endpoint is not None:
            seeded = dataclasses.replace(self.model, settings=settings)
            return EndpointSubject(seeded.endpoint(self.endpoint, self.api_key_env), cast(Mode | None, mode))
        return ModelSubject(
            self.model.load(),
            settings,
            mode=cast(Mode | None, mode),
            is_constrained=is_constrained,
            is_grounded=is_grounded,
        )

    def run(
        self, name: str, cases: list[Case], score: Score, subject: Subject, beside: Mapping[str, Any] | None = None
    ) -> None:
        """Evaluates, and prints the summary; `beside`: what is printed with it."""
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task(name, total=len(cases))
            outcomes = evaluate(subject, cases, score, lambda _: progress.advance(task))
        summary = {"task": name, **summarise(outcomes), **(beside or {}), **subject.facts}
        if self.failures is not None:
            lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in failed_rows(outcomes)]
            self.failures.write_text("".join(lines), encoding="utf-8")
        if self.as_json:
            print(json.dumps(summary))
        else:
            show_table(summary_rows(summary))


@options.with_model_options
def _make_options(
    model_options: options.ModelOptions,
    *,
    endpoint: options.EndpointOption = None,
    api_key_env: options.KeyOption = None,
    as_json: options.JsonOption = False,
    failures: Annotated[
        Path | None, typer.Option(help="Write the examples it got wrong to this file, one JSON line each.")
    ] = None,
) -> EvaluationOptions:
    options.check_folder("failures", failures)
    return EvaluationOptions(model_options, endpoint, api_key_env, as_json, failures)


with_evaluation_options = options.receives(_make_options)


def _run_task(
    task: EvaluationTask,
    evaluation: EvaluationOptions,
    examples: int,
    *,
    mode: str | None,
    constrained: bool,
    grounded: bool = False,
) -> None:
    options.check_at_least(1, examples=examples)
    if task.name != "extract":
        options.require_package("rapidfuzz", "eval")
    subject = evaluation.subject(mode=mode, is_constrained=constrained, is_grounded=grounded)
    evaluation.run(task.name, task.cases(examples), task.score, subject)


ConstrainedOption = Annotated[
    bool, typer.Option("--constrained", help="Hold each answer to the fields or the form it is asked for.")
]


@with_evaluation_options
def extract(
    evaluation: EvaluationOptions,
    *,
    examples: ExamplesOption = 250,
    mode: options.ModeOption = None,
    constrained: ConstrainedOption = False,
    grounded: Annotated[
        bool, typer.Option("--grounded", help="Hold each answer to the fields, and its values to the prompt's text.")
    ] = False,
) -> None:
    _run_task(TASKS["extract"], evaluation, examples, mode=mode, constrained=constrained, grounded=grounded)


@with_evaluation_options
def normalize(
    evaluation: EvaluationOptions,
    *,
    examples: ExamplesOption = 250,
    mode: options.ModeOption = None,
    constrained: ConstrainedOption = False,
) -> None:
    _run_task(TASKS["normalize"], evaluation, examples, mode=mode, constrained=constrained)


extract.__doc__, normalize.__doc__ = TASKS["extract"].description, TASKS["normalize"].description


@with_evaluation_options
def repair(evaluation: EvaluationOptions, *, examples: ExamplesOption = 250, mode: options.ModeOption = None) -> None:
    _run_task(TASKS["repair"], evaluation, examples, mode=mode, constrained=False)


repair.__doc__ = TASKS["repair"].description


@with_evaluation_options
def fill(evaluation: EvaluationOptions, *, examples: ExamplesOption = 250) -> None:
    """Records of the extract task with one value open, all others given."""
    options.check_at_least(1, examples=examples)
    if evaluation.endpoint is not None:
        raise ValueError("the blanks are filled by a model in this process; leave out --endpoint")
    task = TASKS["extract"]
    cases = task.cases(examples)
    texts = with_one_open(cases)
    subject = FillSubject(evaluation.model.load(), {"seed": 0} | evaluation.model.settings, texts)
    evaluation.run("fill", [case for case in cases if case.prompt in texts], task.score, subject)


@with_evaluation_options
def wide(
    evaluation: EvaluationOptions,
    names: Annotated[
        list[str] | None, typer.Argument(help=f"The sets, all by default: {', '.join(WIDE_SETS)}.", metavar="SET...")
    ] = None,
    *,
    mode: options.ModeOption = None,
) -> None:
    """The test sets of requests for any field, a line of JSON each."""
    for name in names or ():
        if name not in WIDE_SETS:
            raise ValueError(f"there is no set {name!r}; there are {', '.join(WIDE_SETS)}")
    subject = evaluation.subject(mode)
    for name in names or WIDE_SETS:
        to = evaluation.failures and evaluation.failures.with_stem(f"{evaluation.failures.stem}-{name}")
        one = dataclasses.replace(evaluation, failures=to, as_json=True)
        one.run(f"wide {name}", WIDE_SETS[name].cases(), score_answer, subject)


@with_evaluation_options
def rows(
    evaluation: EvaluationOptions,
    file: Annotated[Path, typer.Argument(help='JSON lines, each with "prompt" and "answer".')],
    *,
    score: Annotated[str, typer.Option(help="text: exact and character error rate; fields: of JSON objects.")] = "text",
    mode: options.ModeOption = None,
) -> None:
    """Any prompts with their right answers."""
    if score not in SCORES:
        raise ValueError(f"--score is {score!r}, must be one of {', '.join(SCORES)}")
    if score == "text":
        options.require_package("rapidfuzz", "eval")
    cases = read_rows(file)
    for case in cases:
        # A case that the score refuses is refused before any answer.
        SCORES[score](case, "")
    evaluation.run(str(file), cases, SCORES[score], evaluation.subject(mode))


@with_evaluation_options
def sudoku(
    evaluation: EvaluationOptions,
    *,
    examples: Annotated[int, typer.Option(help="Puzzles of each grade.")] = 20,
    pinned: Annotated[
        bool, typer.Option("--pinned", help="Pin the given cells on the canvas of a model that writes 81 digits.")
    ] = False,
) -> None:
    """Puzzles with one solution in three grades; not what the bundled model is for."""
    options.check_at_least(1, examples=examples)
    if pinned and evaluation.endpoint is not None:
        raise ValueError("the cells are pinned for a model in this process; leave out --endpoint")
    if pinned:
        subject: Subject = PinnedSudoku(evaluation.model.load(), {"seed": 0} | evaluation.model.settings)
    else:
        subject = evaluation.subject()
    evaluation.run("sudoku", sudoku_cases(examples), score_sudoku, subject, {"published": PUBLISHED})


@with_evaluation_options
def needle(
    evaluation: EvaluationOptions,
    *,
    lengths: Annotated[str, typer.Option(help="Tokens of the prompt, separated by commas.")] = "100,400,1600",
    depths: Annotated[str, typer.Option(help="Positions of the fact, 0 (first) to 1 (last).")] = "0,0.25,0.5,0.75,1",
    form: Annotated[
        str, typer.Option(help="How the prompt asks: extract (the bundled model's form) or question.")
    ] = "extract",
) -> None:
    """One fact among filler sentences, at every depth of every length."""
    grid = options.parse_numbers("lengths", lengths, int), options.parse_numbers("depths", depths, float)
    check_needle(*grid, form)
    subject = evaluation.subject()
    evaluation.run("needle", needle_cases(*grid, form, subject.count_tokens), score_needle, subject)
