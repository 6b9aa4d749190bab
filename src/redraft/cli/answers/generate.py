"""`redraft generate`: one prompt, one answer; or a file of prompts, and their answers as JSON lines."""

import json
import os
import sys
from typing import Annotated, Any

import typer

import redraft
from redraft.cli import options
from redraft.cli.answers.answer_warnings import (
    MinTrustOption,
    StrictOption,
    check_min_trust,
    end_with_warnings,
    is_below,
)
from redraft.cli.answers.constraint import check_holding, with_constraint_options, with_grounding_options
from redraft.cli.answers.live import answer
from redraft.cli.answers.row_options import RowOptions, with_row_options
from redraft.cli.answers.rows import answer_rows
from redraft.cli.streams import print_answer, read_standard_input

MAX_STEP_DELAY = 60


@options.with_model_options
@with_row_options
@with_constraint_options
@with_grounding_options
def generate(
    grounding: dict[str, Any],
    constraint: dict[str, Any],
    row_options: RowOptions,
    model_options: options.ModelOptions,
    prompt: Annotated[str | None, typer.Argument(help="The prompt; - for standard input.")] = None,
    piped: Annotated[str | None, typer.Argument(metavar="[-]", help="- : standard input follows the prompt.")] = None,
    *,
    mode: options.ModeOption = None,
    plain: Annotated[bool, typer.Option("--plain", help="Print only the text, without the live canvas.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, without the live canvas.")] = False,
    step_delay: Annotated[float, typer.Option(help="Seconds to pause at each step of the live canvas.")] = 0.0,
    strict: StrictOption = False,
    min_trust: MinTrustOption = None,
    quiet: options.QuietOption = False,
) -> None:
    """Answer one prompt, or every row of a file.

    On a terminal the canvas resolves live. The answers to rows are printed as JSON lines, in order, or go into a file.
    """
    if not 0 <= step_delay <= MAX_STEP_DELAY:
        raise ValueError(f"--step-delay is {step_delay}, must be between 0 and {MAX_STEP_DELAY} seconds")
    check_holding(constraint, grounding)
    if row_options.file is not None:
        if prompt:
            raise ValueError("--rows cannot be combined with a prompt: what is asked of every row stands in --template")
        for name, value in (("--plain", plain), ("--step-delay", step_delay)):
            if value:
                raise ValueError(f"--rows cannot be combined with {name}: rows are answered as JSON lines or a table")
        if as_json and row_options.kind != "jsonl":
            raise ValueError(f"--json cannot be combined with a table: the output is {row_options.kind}")
        if min_trust is not None and row_options.output is None:
            raise ValueError("--min-trust of --rows requires --output FILE: rows below go into a file beside it")
        check_min_trust(model_options.model, min_trust)
        held = {**constraint, **grounding}
        answer_rows(model_options, row_options, mode, held, strict=strict, min_trust=min_trust, quiet=quiet)
        return
    if plain and as_json:
        raise ValueError("--plain cannot be combined with --json: the one prints the text, the other an object")
    if step_delay and (plain or as_json):
        raise ValueError(f"--step-delay cannot be combined with {'--plain' if plain else '--json'}: no step is shown")
    if prompt is None:
        raise ValueError("there is no prompt: give one, - for standard input, or --rows FILE")
    asked = {"mode": mode, **constraint, **grounding, **model_options.settings_in(mode)}
    text = read_prompt(prompt, piped)
    check_min_trust(model_options.model, min_trust)
    model = model_options.load(quiet=quiet)
    if as_json:
        *_, result = model.stream(text, **asked)
        assert isinstance(result, redraft.Result)
        print_answer(json.dumps(result.to_json(), ensure_ascii=False))
    else:
        is_live = sys.stdout.isatty() and not plain
        result = answer(model, text, asked, is_live=is_live, step_delay=step_delay, quiet=quiet)
    end_with_warnings(bool(result.warnings), strict=strict)
    end_with_warnings(is_below(result.trust.probability, min_trust), strict=True)


def read_prompt(prompt: str, piped: str | None = None) -> str:
    """Returns the prompt: standard input for "-", and followed by it, on the next line, where "-" comes after.

    Standard input is read only where that is said: a program that runs this one may keep its own open, or need it.
    Raises ValueError for what is not UTF-8.
    """
    if piped not in (None, "-") or piped == prompt:
        raise ValueError(
            f"{piped!r} is a second argument, and only - may follow the prompt: put the whole prompt in one pair of "
            "quotation marks"
        )
    if prompt == "-":
        return read_standard_input()
    try:
        # In the C locale Python may pass on bytes that are not ASCII as surrogates.
        prompt = os.fsencode(prompt).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"the prompt is not UTF-8: byte {error.object[error.start]:#04x} at {error.start}") from None
    return prompt if piped is None else f"{prompt}\n{read_standard_input().removesuffix(chr(10))}"
