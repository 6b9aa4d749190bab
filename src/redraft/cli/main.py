"""The `redraft` command and how its errors look: one line, exit code 2."""

import sys

import typer

from redraft.cli import chat, data, generate, info, quantize, serve, train
from redraft.cli.bench import group as bench
from redraft.cli.eval import group as evaluation

app = typer.Typer(
    help="DiffusionGemma: text by denoising a whole canvas of tokens at once.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("generate")(generate.generate)
app.command("chat")(chat.chat)
app.command("examples")(chat.examples)
app.command("info")(info.info)
app.command("serve")(serve.serve)
app.command("quantize")(quantize.quantize)
app.add_typer(train.app, name="train")
app.add_typer(evaluation.app, name="eval")
app.add_typer(bench.app, name="bench")
app.add_typer(data.app, name="data")

INTERRUPTED = 130
"""What the command framework returns after ctrl-C, without a word."""


def main() -> None:
    """Runs the command; one line and exit code 2 for whatever the user can put right, and after ctrl-C."""
    try:
        sys.exit(_run(sys.argv[1:] or ["--help"]))
    except BrokenPipeError:
        # The reader of our output has gone (`redraft ... | head`): nothing is left to say, not even at exit.
        sys.stderr.close()
        sys.exit(1)


def _run(arguments: list[str]) -> int:
    try:
        code = app(arguments, prog_name="redraft", standalone_mode=False)
    except typer.TyperException as error:
        # Its parser's errors know how they read best, and which command they belong to.
        message = getattr(error, "format_message", error.__str__)()
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "redraft"
        return _refuse(f"{message.rstrip('.')}; see: {command} --help")
    except BrokenPipeError:
        raise
    except (ValueError, OSError) as error:
        return _refuse(str(error))
    return _refuse("interrupted") if code == INTERRUPTED else code or 0


def _refuse(message: str) -> int:
    print(f"redraft: {' '.join(message.split())}", file=sys.stderr)
    return 2
