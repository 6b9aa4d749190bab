"""`redraft constraint`: what a constraint allows, before a model is asked to keep it."""

import random
from pathlib import Path
from typing import Annotated, Any

import typer

from redraft.cli import options
from redraft.cli.output import show_table
from redraft.constraints.build import build, spec_of
from redraft.constraints.json_schema.compiler import read_schema
from redraft.constraints.limits import Budget, BuildLimits
from redraft.constraints.vocabulary import Vocabulary
from redraft.text import TextTokenizer
from redraft.utils.words import counted

SHOWN_MEMBERS = 3


def make_constraint_options(
    *,
    json_schema: Annotated[Path | None, typer.Option(help="A file with a JSON Schema that the answer fits.")] = None,
    regex: Annotated[str | None, typer.Option(help="A pattern that the whole answer matches.")] = None,
    choice: Annotated[list[str] | None, typer.Option(help="A text that the answer may be; repeatable.")] = None,
    grammar: Annotated[
        Path | None, typer.Option(help="A file with rules, of which one is named start or root.")
    ] = None,
) -> dict[str, Any]:
    """Returns what an answer is held to, as arguments of `Model.generate`; empty where it is held to nothing."""
    given = {"--json-schema": json_schema, "--regex": regex, "--choice": choice or None, "--grammar": grammar}
    if len(names := [name for name, value in given.items() if value is not None]) > 1:
        raise ValueError(f"{' and '.join(names)} are given: an answer has one constraint")
    return options.without_none(
        schema=None if json_schema is None else read_schema(_read_text(json_schema)),
        regex=regex,
        choice=choice or None,
        grammar=None if grammar is None else _read_text(grammar),
    )


with_constraint_options = options.receives(make_constraint_options)


def make_grounding_options(
    *,
    schema_from_prompt: Annotated[
        bool, typer.Option("--schema-from-prompt", help="Hold the answer to the fields that the prompt asks for.")
    ] = False,
    grounded: Annotated[
        bool, typer.Option("--grounded", help="Hold each text of the answer to the prompt's own; needs a schema.")
    ] = False,
    at_words: Annotated[bool, typer.Option("--at-words", help="With --grounded: to whole words of it.")] = False,
) -> dict[str, Any]:
    """Returns what beside a constraint an answer is held to, as arguments of `Model.generate`."""
    given = {"schema_from_prompt": schema_from_prompt, "grounded": grounded, "at_words": at_words}
    return {name: True for name, value in given.items() if value}


with_grounding_options = options.receives(make_grounding_options)


def check_holding(constraint: dict[str, Any], grounding: dict[str, Any]) -> None:
    """Raises ValueError where what an answer is held to contradicts itself, whatever its prompt."""
    if grounding.get("schema_from_prompt") and constraint:
        raise ValueError("--schema-from-prompt gives the constraint: leave out the other one")
    if grounding and "schema" not in constraint and "schema_from_prompt" not in grounding:
        option = "--grounded" if "grounded" in grounding else "--at-words"
        raise ValueError(f"{option} needs a schema: give --json-schema, or --schema-from-prompt")


@with_constraint_options
def constraint(
    given: dict[str, Any],
    file: Annotated[Path | None, typer.Argument(help="A JSON Schema, the same as --json-schema.")] = None,
    *,
    model: options.ModelOption = "bundled",
    max_tokens: Annotated[int, typer.Option(help="Tokens that a random member has at most.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of the random members.")] = 0,
) -> None:
    """Show what a constraint allows, or why it is refused.

    The size of its automaton, its shortest answer and random members. Only the tokenizer of the model is read.
    """
    options.check_at_least(1, max_tokens=max_tokens)
    if file is not None:
        if "schema" in given:
            raise ValueError(f"{file} and --json-schema are two schemas: leave one of them out")
        given["schema"] = read_schema(_read_text(file))
    if (spec := spec_of(**given)) is None:
        raise ValueError("there is no constraint: give FILE, --json-schema, --regex, --choice or --grammar")
    # They import torch, for which help and refusals of `redraft generate` need not wait.
    from redraft.weights.config.file import read_config
    from redraft.weights.fetch import resolve

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


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text: is it the right file?") from None
