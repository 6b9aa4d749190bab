"""`redraft chat` and `redraft examples`."""

import io
import sys
from typing import Annotated

import typer

from redraft.cli import options


@options.answering
def chat(  # noqa: C901 - a conversation is one loop with many small turns
    asked: options.Request,
    *,
    plain: Annotated[bool, typer.Option("--plain", help="Without the live canvas.")] = False,
) -> None:
    """Talk to a model. /new forgets what was said, /exit or ctrl-D leaves; ctrl-C stops an answer."""
    from redraft.cli.generate import last_result
    from redraft.cli.live import show

    loaded = asked.load()
    if not loaded.tokenizer.has_chat_template:
        raise ValueError(f"{asked.model} has no chat template; use 'redraft generate' with a plain prompt")
    for line in filter(None, (loaded.card.purpose, loaded.card.limits)):
        print(line)
    if isinstance(sys.stdin, io.TextIOWrapper):
        # Under the C locale Python would pass bytes that are not UTF-8 on as surrogates.
        sys.stdin.reconfigure(encoding="utf-8", errors="strict")
    live = sys.stdout.isatty() and not plain
    messages: list[dict[str, object]] = []
    while True:
        try:
            said = input("> " if sys.stdin.isatty() else "")
        except EOFError:
            print()
            return
        except UnicodeDecodeError:
            raise ValueError("standard input is not UTF-8") from None
        if said.strip() == "/exit":
            return
        if said.strip() == "/new":
            messages = []
            continue
        if not said.strip():
            continue
        if loaded.card.single_turn:
            messages = []
        messages.append({"role": "user", "content": said})
        try:
            events = loaded.stream(messages, **asked.settings)
            if live:
                result = show(events, loaded.tokenizer)
            else:
                result = last_result(events)
                print(result.text)
        except KeyboardInterrupt:
            messages.pop()
            print("(stopped; the question is forgotten)", file=sys.stderr)
            continue
        except ValueError as error:
            messages.pop()
            print(f"redraft: {error}", file=sys.stderr)
            continue
        messages.append({"role": "assistant", "content": result.text})


def examples(
    number: Annotated[int | None, typer.Argument(help="Run this example; without one, all are listed.")] = None,
    *,
    model: options.ModelOption = "bundled",
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same answer.")] = None,
) -> None:
    """Prompts that a checkpoint is good at, as commands; with a number, run one."""
    import shlex

    import redraft
    from redraft.cli.live import show

    card = redraft.read_card(model)
    if not card.examples:
        raise ValueError(f"{model} ships no examples")
    if number is None:
        print(card.purpose)
        chosen = [] if model == "bundled" else ["--model", model]
        for index, prompt in enumerate(card.examples, start=1):
            print(f"\n{index}. {shlex.join(['redraft', 'generate', *chosen, prompt])}")
        if card.limits:
            print(f"\n{card.limits}")
        return
    if not 1 <= number <= len(card.examples):
        raise ValueError(f"there is no example {number}; there are 1 to {len(card.examples)}")
    prompt = card.examples[number - 1]
    print(prompt)
    loaded = redraft.load(model)
    settings = options.given(seed=seed)
    if sys.stdout.isatty():
        show(loaded.stream(prompt, **settings), loaded.tokenizer)
    else:
        print(loaded.generate(prompt, **settings).text)
