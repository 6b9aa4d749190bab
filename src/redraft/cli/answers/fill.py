"""`redraft fill` and `redraft edit`: writing inside a text, of which everything else stays as it is."""

import difflib
import json
from pathlib import Path
from typing import Annotated

import typer

from redraft.cli import options
from redraft.cli.answers.answer_warnings import StrictOption, end_with_warnings, say_warnings
from redraft.cli.answers.generate import read_prompt
from redraft.cli.streams import say
from redraft.constraints.language.blanks import BLANK, split_blanks
from redraft.utils.files import write_whole

LimitOption = Annotated[int | None, typer.Option(help="Characters that are written in one place at most.")]


@options.with_model_options
def fill(
    model_options: options.ModelOptions,
    text: Annotated[str, typer.Argument(help="The text, with ___ for each blank; - for standard input.")],
    *,
    prompt: Annotated[
        str | None, typer.Option(help="What the text answers; without it the model is asked to fill.")
    ] = None,
    blank: Annotated[str, typer.Option(help="What marks a blank.")] = BLANK,
    limit: LimitOption = 40,
    as_json: options.JsonOption = False,
    strict: StrictOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Fill the blanks of a text.

    Everything in "Dear ___, your order ___ is ready." except the blanks is kept as it is. Each blank is as long as the
    model makes it, up to a limit.
    """
    options.check_at_least(1, limit=limit)
    text = read_prompt(text)
    split_blanks(text, blank)
    model = model_options.load(quiet=quiet)
    filled = model.fill(text, prompt=prompt, blank=blank, limit=limit, **model_options.settings)
    if as_json:
        print(json.dumps({**filled.result.to_json(), "text": filled.text, "values": filled.values}, ensure_ascii=False))
    else:
        print(filled.text)
        say_warnings(filled.result.warnings, quiet=quiet)
    end_with_warnings(bool(filled.result.warnings), strict=strict)


@options.with_model_options
def edit(
    model_options: options.ModelOptions,
    file: Annotated[Path, typer.Argument(help="A text file, UTF-8.")],
    *,
    span: Annotated[str | None, typer.Option(help="The characters to write anew, A:B, counted from 0.")] = None,
    find: Annotated[str | None, typer.Option(help="The text to write anew; it stands in the file once.")] = None,
    instruction: Annotated[str | None, typer.Option(help="What the model is asked about the text around it.")] = None,
    strength: Annotated[
        float | None,
        typer.Option(help="Start from the old text with this share of noise, up to 1, and keep its length."),
    ] = None,
    limit: LimitOption = None,
    in_place: Annotated[bool, typer.Option("--in-place", help="Write the file.")] = False,
    strict: StrictOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Write a span of a file anew, and show the difference.

    No byte outside the span changes. Without --in-place the file stays as it is.
    """
    options.check_at_least(1, limit=limit)
    if (span is None) == (find is None):
        raise ValueError("give either --span A:B or --find TEXT")
    if limit is not None and strength is not None:
        raise ValueError("--limit cannot be combined with --strength: a span that starts from itself keeps its length")
    # A symbolic link stays one.
    file = file.resolve()
    try:
        text = file.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text: byte {error.start}") from None
    start, end = _find(text, find) if find is not None else _parse_span(str(span), len(text))
    model = model_options.load(quiet=quiet)
    edited = model.edit(
        text, start, end, instruction=instruction, limit=limit, strength=strength, **model_options.settings
    )
    _show_difference(text, edited.text, file.name)
    if edited.text == text:
        say("the span was written as it stood: nothing changes", quiet=quiet)
    elif in_place:
        mode = file.stat().st_mode
        write_whole(file, edited.text)
        file.chmod(mode)
    say_warnings(edited.result.warnings, quiet=quiet)
    end_with_warnings(bool(edited.result.warnings), strict=strict)


def _find(text: str, wanted: str) -> tuple[int, int]:
    if not wanted:
        raise ValueError("--find is empty, must be a text that stands in the file once; or give --span A:B")
    count = text.count(wanted)
    if count != 1:
        raise ValueError(
            f"--find {wanted!r:.60} stands {count} times in the file, must stand there once: give --span A:B"
        )
    at = text.index(wanted)
    return at, at + len(wanted)


def _parse_span(span: str, length: int) -> tuple[int, int]:
    first, colon, last = span.partition(":")
    if not (colon and first.isdecimal() and last.isdecimal() and int(first) <= int(last) <= length):
        raise ValueError(f"--span is {span!r}, must be A:B within the file's {length:,} characters")
    return int(first), int(last)


def _show_difference(old: str, new: str, name: str) -> None:
    before, after = ([f"{line}\n" for line in text.splitlines()] for text in (old, new))
    print("".join(difflib.unified_diff(before, after, name, name)), end="")
