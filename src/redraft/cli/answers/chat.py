"""`redraft chat`, and what a checkpoint says of itself: `redraft examples` and `redraft fields`."""

import io
import re
import shlex
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

import redraft
from redraft.cli import options
from redraft.cli.answers.live import answer
from redraft.cli.streams import loading, standard_input

COMMANDS = "/new starts a new conversation, /exit or ctrl-D leaves; ctrl-C stops an answer"


@options.with_model_options
def chat(
    model_options: options.ModelOptions,
    *,
    mode: options.ModeOption = None,
    plain: Annotated[bool, typer.Option("--plain", help="Print only the text, without the live canvas.")] = False,
    quiet: options.QuietOption = False,
) -> None:
    """Talk to a model. /new starts a new conversation, /exit or ctrl-D leaves; ctrl-C stops an answer."""
    asked = {"mode": mode, **model_options.settings_in(mode)}
    model = model_options.load(quiet=quiet)
    if not model.tokenizer.has_chat_template:
        raise ValueError(f"{model_options.model} has no chat template; use 'redraft generate' with a plain prompt")
    for line in filter(None, (model.card.purpose, model.card.limits)):
        print(line)
    messages: list[dict[str, object]] = []
    for line in _read_lines():
        if line.strip() == "/exit":
            return
        if line.strip() in ("/help", "/?"):
            print(COMMANDS)
            continue
        # One word: a question may begin with a path.
        if line.strip() != "/new" and re.fullmatch(r"/\w+", line.strip()):
            print(f"redraft: there is no command {line.strip()}; /help lists them", file=sys.stderr)
            continue
        if line.strip() == "/new" or model.card.single_turn:
            messages = []
        if line.strip() in ("", "/new"):
            continue
        messages.append({"role": "user", "content": line})
        try:
            is_live = sys.stdout.isatty() and not plain
            result = answer(model, messages, asked, is_live=is_live, quiet=quiet, is_wrapped=True)
        except (KeyboardInterrupt, ValueError) as error:
            messages.pop()
            stopped = isinstance(error, KeyboardInterrupt)
            print("(stopped; the question is forgotten)" if stopped else f"redraft: {error}", file=sys.stderr)
        else:
            messages.append({"role": "assistant", "content": result.text})


def _read_lines() -> Iterator[str]:
    source = standard_input()
    if isinstance(source, io.TextIOWrapper):
        # In the C locale Python would pass on bytes that are not UTF-8 as surrogates.
        source.reconfigure(encoding="utf-8", errors="strict")
    while True:
        try:
            yield input("> " if source.isatty() else "")
        except EOFError:
            print()
            return
        except UnicodeDecodeError:
            raise ValueError("standard input is not UTF-8") from None


def examples(
    number: Annotated[int | None, typer.Argument(help="Run this example; by default all are listed.")] = None,
    *,
    model: options.ModelOption = "bundled",
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same answer.")] = None,
    quiet: options.QuietOption = False,
) -> None:
    """Show prompts that a checkpoint is good at, or run one of them."""
    card = redraft.read_card(model)
    if not card.examples:
        raise ValueError(f"{model} ships no examples")
    if number is None:
        print(card.purpose)
        chosen = [] if model == "bundled" else ["--model", model]
        for index, prompt in enumerate(card.examples, start=1):
            print(f"\n{index}. {shlex.join(['redraft', 'generate', *chosen, prompt])}")
        if card.prompt_forms and not card.open_wording:
            print("\nThe forms of all prompts that it was trained on:", *card.prompt_forms, sep="\n")
        if card.limits:
            print(f"\n{card.limits}")
        return
    if not 1 <= number <= len(card.examples):
        raise ValueError(f"there is no example {number}; there are 1 to {len(card.examples)}")
    prompt = card.examples[number - 1]
    print(prompt)
    with loading(model, quiet=quiet):
        loaded = redraft.load(model)
    answer(loaded, prompt, options.without_none(seed=seed), is_live=sys.stdout.isatty(), quiet=quiet)


def fields(*, model: options.ModelOption = "bundled") -> None:
    """List the fields that a checkpoint can extract, by kind of text."""
    card = redraft.read_card(model)
    known = card.fields
    if card.open_wording:
        print(
            "Name any field in your own words, with a description in brackets where its name is not clear: this model "
            "was trained on no fixed list."
        )
    if not known and not card.open_wording:
        raise ValueError(f"{model} lists no fields")
    if known:
        seen = "It has seen these most" if card.open_wording else "Ask for any of them"
        print(f'{seen}: "Extract name, date as JSON: <your text>"\n')
    width = max(map(len, known), default=0)
    for kind, names in known.items():
        print(f"{kind:{width}}  {', '.join(names)}")
