"""The `redraft` command and how its errors look: one line, exit code 2."""

import itertools
import os
import re
import sys
import time
from typing import Annotated

import typer

import redraft
from redraft.cli.config import VARIABLES, file_defaults
from redraft.cli.lazy import lazy_app
from redraft.cli.streams import explain_os_error, prepare_streams
from redraft.utils.threads import requested_threads


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(f"redraft {redraft.__version__}")
        raise typer.Exit


def _program_options(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback does all
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Has the options of `redraft` itself as its parameters; reads the file that has the defaults of all others."""
    if context.invoked_subcommand != "config":
        context.default_map = file_defaults()


app = lazy_app(
    "DiffusionGemma: text by denoising a whole canvas of tokens at once.",
    {
        "generate": ("redraft.cli.answers.generate:generate", "Answer one prompt, or every row of a file."),
        "batch": ("redraft.cli.batch:app", "Answer files of any size, as jobs that survive whatever interrupts them."),
        "fill": ("redraft.cli.answers.fill:fill", "Fill the blanks of a text."),
        "edit": ("redraft.cli.answers.fill:edit", "Write a span of a file anew, and show the difference."),
        "decide": (
            "redraft.cli.answers.decide:decide",
            "Decide questions about a text: which label, yes or no, how much.",
        ),
        "chat": ("redraft.cli.answers.chat:chat", "Talk to a model."),
        "examples": (
            "redraft.cli.answers.chat:examples",
            "Show prompts that a checkpoint is good at, or run one of them.",
        ),
        "fields": (
            "redraft.cli.answers.chat:fields",
            "List the fields that a checkpoint can extract, by kind of text.",
        ),
        "constraint": (
            "redraft.cli.answers.constraint:constraint",
            "Show what a constraint allows, or why it is refused.",
        ),
        "info": ("redraft.cli.checkpoint.info:info", "Show a checkpoint's size and whether it fits this machine."),
        "config": ("redraft.cli.config:config", "Show what the configuration file and the environment set."),
        "serve": ("redraft.cli.serve:serve", "Serve a model behind OpenAI's API, with a playground at /."),
        "quantize": (
            "redraft.cli.checkpoint.quantize:quantize",
            "Write a smaller copy of a checkpoint, in 8 or 4 bits.",
        ),
        "calibrate": (
            "redraft.cli.eval.trust:calibrate",
            "Fit the number of a checkpoint's trust marks on tuning sets, and write it beside its weights.",
        ),
        "finetune": (
            "redraft.cli.finetune:command",
            "Fine-tune a checkpoint on rows of your own: a small adapter beside it, or all its weights.",
        ),
        "merge": (
            "redraft.cli.checkpoint.merge:merge",
            "Write the model that a base is with an adapter, as a checkpoint of its own.",
        ),
        "train": ("redraft.cli.train:app", "Train a model from a recipe."),
        "eval": ("redraft.cli.eval:app", "Measure how good a checkpoint is."),
        "bench": ("redraft.cli.bench:app", "Measure and predict speed; each command ends in one JSON line."),
        "data": ("redraft.cli.data:app", "Build the data for training and evaluation."),
    },
    callback=_program_options,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

TEXT_COMMANDS = ("generate", "fill", "decide")
"""Those whose argument is a text, which a shell cuts at its spaces."""
INTERRUPTED = 130
"""The exit code after ctrl-C, as shells have it: 128 and the signal's number. typer returns it without a word."""


def main() -> None:
    """Runs the command line; one line and exit code 2 for what the user can correct, 130 after ctrl-C."""
    prepare_streams()
    try:
        code = _run(sys.argv[1:] or ["--help"], started=time.perf_counter())
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            # At exit Python would try again, and end with a code and words of its own.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            code = code or _fail(f"standard output: {explain_os_error(error)}")
        sys.exit(code)
    except BrokenPipeError:
        # The reader of our output has gone (`redraft ... | head`): nothing is left to say, not even at exit.
        sys.stderr.close()
        sys.exit(1)


def _run(arguments: list[str], started: float) -> int:
    try:
        requested_threads()
        # `typer.Context.obj` is when the command line began.
        code = app(arguments, prog_name="redraft", standalone_mode=False, obj=started)
    except typer.TyperException as error:
        # The parser's errors know how they read best, and which command they belong to.
        message = _named_value(getattr(error, "format_message", error.__str__)(), arguments)
        context = getattr(error, "ctx", None)
        named = "" if arguments[0].startswith("-") else f" {arguments[0]}"
        command = context.command_path if context else f"redraft{named}"
        if found := re.fullmatch(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)\.?", message, re.DOTALL):
            message = f"{command} has no place for {found[1]!r}"
            if context and context.info_name in TEXT_COMMANDS:
                message = f"{message}: put quotation marks around a text with spaces"
        if message.endswith("?"):
            return _fail(f"{message} See: {command} --help")
        return _fail(f"{message.rstrip('.')}; see: {command} --help")
    except BrokenPipeError:
        raise
    except OSError as error:
        return _fail(explain_os_error(error))
    except ValueError as error:
        return _fail(_named_model(str(error), arguments))
    except KeyboardInterrupt:
        code = INTERRUPTED
    return _fail("interrupted", INTERRUPTED) if code == INTERRUPTED else code or 0


def _named_value(message: str, arguments: list[str]) -> str:
    """Returns what the parser says of an option's value, with the value; a message about anything else as it is."""
    found = re.match(r"Invalid value for '([\w-]+)'.*: Input should be a valid (number|integer)", message)
    if found is None:
        return message
    option, kind = found.groups()
    if not option.startswith("-"):
        return f"{option} must be {'a number' if kind == 'number' else 'an integer'}"
    given = [value for before, value in itertools.pairwise(arguments) if before == option]
    given += [argument.partition("=")[2] for argument in arguments if argument.startswith(f"{option}=")]
    return (
        f"{option} is {given[-1]!r}, must be {'a number' if kind == 'number' else 'an integer'}" if given else message
    )


def _named_model(message: str, arguments: list[str]) -> str:
    """Returns what is wrong with a model's name, with the environment variable that it came from, if it did."""
    name = os.environ.get(VARIABLES["model"])
    is_named_here = any(argument in ("-m", "--model") or argument.startswith("--model=") for argument in arguments)
    starts = (f"there is no folder {name!r};", f"{name} is a file;", f"cannot fetch {name}:")
    if name is None or is_named_here or not message.startswith(starts):
        return message
    return f"{message} ({VARIABLES['model']} names it: set another, or give --model)"


def _fail(message: str, code: int = 2) -> int:
    print(f"redraft: {' '.join(message.split())}", file=sys.stderr)
    return code
