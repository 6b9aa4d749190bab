"""The `redraft` command and how its errors look: one line, exit code 2."""

import sys
import time

import typer

from redraft.cli.lazy import lazy_app
from redraft.cli.options import Invocation
from redraft.utils.threads import requested_threads

app = lazy_app(
    "DiffusionGemma: text by denoising a whole canvas of tokens at once.",
    {
        "generate": ("redraft.cli.answers.generate:generate", "Answer one prompt, or every row of a file."),
        "chat": ("redraft.cli.answers.chat:chat", "Talk to a model."),
        "examples": (
            "redraft.cli.answers.chat:examples",
            "Show prompts that a checkpoint is good at, or run one of them.",
        ),
        "fields": (
            "redraft.cli.answers.chat:fields",
            "List the fields that a checkpoint can extract, by kind of text.",
        ),
        "info": ("redraft.cli.info:info", "Show a checkpoint's size and whether it fits this machine."),
        "serve": ("redraft.cli.serve:serve", "Serve a model behind OpenAI's API, with a playground at /."),
        "quantize": ("redraft.cli.quantize:quantize", "Write a smaller copy of a checkpoint, in 8 or 4 bits."),
        "train": ("redraft.cli.train:app", "Train a model from a recipe."),
        "eval": ("redraft.cli.eval:app", "Measure how good a checkpoint is."),
        "bench": ("redraft.cli.bench:app", "Measure and predict speed; each command ends in one JSON line."),
        "data": ("redraft.cli.data:app", "Build the data for training and evaluation."),
    },
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

INTERRUPTED = 130
"""The exit code that typer returns for ctrl-C, without printing anything."""


def main() -> None:
    """Runs the command line; one line and exit code 2 for what the user can correct, and after ctrl-C."""
    try:
        sys.exit(_run(sys.argv[1:] or ["--help"], Invocation(time.perf_counter())))
    except BrokenPipeError:
        # The reader of our output has gone (`redraft ... | head`): nothing is left to say, not even at exit.
        sys.stderr.close()
        sys.exit(1)


def _run(arguments: list[str], invocation: Invocation) -> int:
    try:
        requested_threads()
        code = app(arguments, prog_name="redraft", standalone_mode=False, obj=invocation)
    except typer.TyperException as error:
        # The parser's errors know how they read best, and which command they belong to.
        message = getattr(error, "format_message", error.__str__)()
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "redraft"
        return _fail(f"{message.rstrip('.')}; see: {command} --help")
    except BrokenPipeError:
        raise
    except (ValueError, OSError) as error:
        return _fail(str(error))
    return _fail("interrupted") if code == INTERRUPTED else code or 0


def _fail(message: str) -> int:
    print(f"redraft: {' '.join(message.split())}", file=sys.stderr)
    return 2
