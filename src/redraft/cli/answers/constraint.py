"""`redraft constraint`: what a constraint allows, before a model is asked to keep it."""

import random
from pathlib import Path
from typing import Annotated

import typer

from redraft.cli import options
from redraft.cli.output import show_table
from redraft.constraints.build import ConstraintSpec, build
from redraft.constraints.limits import Budget, BuildLimits
from redraft.constraints.vocabulary import Vocabulary
from redraft.text import TextTokenizer
from redraft.utils.words import counted
from redraft.weights.config.file import read_config
from redraft.weights.fetch import resolve

SHOWN_MEMBERS = 3


def constraint(
    file: Annotated[Path | None, typer.Argument(help="A JSON Schema, the same as --json-schema.")] = None,
    *,
    model: options.ModelOption = "bundled",
    json_schema: Annotated[Path | None, typer.Option(help="A file with a JSON Schema.")] = None,
    regex: Annotated[str | None, typer.Option(help="A pattern that the whole answer matches.")] = None,
    choice: Annotated[list[str] | None, typer.Option(help="A text that the answer may be; give it again.")] = None,
    grammar: Annotated[
        Path | None, typer.Option(help="A file with rules, of which one is named start or root.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(help="Tokens that a random member has at most.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of the random members.")] = 0,
) -> None:
    """Show what a constraint allows, or why it is refused.

    The size of its automaton, its shortest answer and random members. Only the tokenizer of the model is read.
    """
    options.check_at_least(1, max_tokens=max_tokens)
    spec = _spec(file, json_schema, regex, choice, grammar)
    folder = resolve(model)
    config = read_config(folder)
    tokens = TextTokenizer.load(folder).all_token_bytes(config.vocab_size)
    vocabulary = Vocabulary(tokens.tokens, end_ids=config.eos_ids, strips_first_space=tokens.strips_first_space)
    automaton = build(spec, vocabulary, Budget(BuildLimits()))
    generator = random.Random(seed)
    members = [automaton.random_member(generator, max_tokens) for _ in range(SHOWN_MEMBERS)]
    rows = [
        ("states", f"{automaton.num_states:,}"),
        ("token classes", f"{automaton.num_classes:,}"),
        ("arcs", f"{automaton.num_arcs:,}"),
        ("shortest answer", counted(automaton.min_tokens, "token")),
    ]
    show_table(rows)
    for ids in (automaton.shortest(), *members):
        print(vocabulary.text_of(ids).decode())


def _spec(
    file: Path | None, json_schema: Path | None, regex: str | None, choice: list[str] | None, grammar: Path | None
) -> ConstraintSpec:
    """Returns the one constraint that is given. ValueError for none, or several."""
    given = {
        "FILE": file,
        "--json-schema": json_schema,
        "--regex": regex,
        "--choice": choice or None,
        "--grammar": grammar,
    }
    names = [name for name, value in given.items() if value is not None]
    if len(names) != 1:
        raise ValueError(f"give one of {', '.join(given)}; {' and '.join(names) or 'none'} given")
    if regex is not None:
        return ConstraintSpec(kind="regex", text=regex)
    if choice:
        return ConstraintSpec(kind="choice", choices=tuple(choice))
    path = file or json_schema or grammar
    assert path is not None
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text: is it the right file?") from None
    return ConstraintSpec(kind="grammar" if grammar else "json_schema", text=text)
