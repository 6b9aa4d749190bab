"""The `redraft` command and how its errors look: one line, exit code 2."""

import sys

import typer

from redraft.cli import chat, data, evaluate, generate, info, train

app = typer.Typer(
    help="DiffusionGemma: text by denoising a whole canvas of tokens at once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("generate")(generate.generate)
app.command("chat")(chat.chat)
app.command("examples")(chat.examples)
app.command("info")(info.info)
app.add_typer(train.app, name="train")
app.add_typer(evaluate.app, name="eval")
app.add_typer(data.app, name="data")

INTERRUPTED = 130


def main() -> None:
    """Runs the command; exit code 2 for whatever the user can put right, 130 after ctrl-C."""
    try:
        app()
    except ValueError as error:
        print(f"redraft: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as ended:
        # How the command framework leaves after ctrl-C, without a word.
        if ended.code == INTERRUPTED:
            print("redraft: interrupted", file=sys.stderr)
        raise
    except BrokenPipeError:
        # The reader of our output has gone (`redraft ... | head`): nothing is left to say, not even at exit.
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        print(f"redraft: {error}", file=sys.stderr)
        sys.exit(2)
