"""What an answer is held to, by the arguments of `Model.generate`: a constraint, and the text that values are from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redraft.answers import json_schema_of
from redraft.constraints.build import ConstraintSpec, spec_of
from redraft.constraints.json_schema.compiler import SchemaOptions, write_schema
from redraft.constraints.language.spans import MAX_TEXT
from redraft.constraints.tokens import TokenAutomaton
from redraft.text import TextTokenizer
from redraft.text.prompts.conversation import text_of
from redraft.text.prompts.forms import PromptTask
from redraft.text.prompts.grounding import SourceText


@dataclass(frozen=True)
class HeldAnswer:
    """spec: the constraint, None without one. schema: what its value is of. source: what its texts are stretches of."""

    spec: ConstraintSpec | None
    schema: Any = None
    source: SourceText | None = None


@dataclass(frozen=True)
class Holding:
    """What an answer is held to, built: `HeldAnswer` with its constraint's automaton."""

    automaton: TokenAutomaton | None
    schema: Any = None
    source: SourceText | None = None


def held_answer(
    prompt: str | Sequence[Mapping[str, object]],
    task: PromptTask | None,
    tokenizer: TextTokenizer,
    *,
    schema: Any = None,
    schema_from_prompt: bool = False,
    grounded: bool = False,
    at_words: bool = False,
    in_parts: bool = False,
    **others: Any,
) -> HeldAnswer:
    """Returns what the answer to a prompt is held to. task: what it asks for; others: as `spec_of` takes them.

    in_parts: whether it is answered in parts, of which each is then held to one object.

    Raises ValueError for arguments that contradict, and for a grounded answer without a schema.
    """
    if schema_from_prompt:
        if schema is not None:
            raise ValueError("schema and schema_from_prompt are given: leave out one of them")
        if task is None or not task.fields:
            raise ValueError("the prompt asks for no fields in a form of this model: give a schema")
        schema = task.schema
    is_grounded = grounded or at_words
    if schema is None:
        if is_grounded:
            raise ValueError("a grounded answer needs a schema: give one, or schema_from_prompt")
        return HeldAnswer(spec_of(**others))
    described = task.item_schema if in_parts and task is not None else json_schema_of(schema)
    options, source = None, None
    if is_grounded or has_span(write_schema(described)):
        source = source_of(prompt if isinstance(prompt, str) else text_of(prompt[-1]), task, tokenizer)
        options = SchemaOptions(text=source.read, is_grounded=is_grounded, at_words=at_words)
    return HeldAnswer(spec_of(schema=described, options=options, **others), schema, source)


def may_be_parted(arguments: Mapping[str, Any]) -> bool:
    """Returns whether an answer may be made in parts: held to nothing, or to the fields that its prompt asks for."""
    return all(arguments.get(name) is None for name in ("schema", "regex", "choice", "grammar", "constraint"))


def depends_on_prompt(
    *, schema: Any = None, schema_from_prompt: bool = False, grounded: bool = False, at_words: bool = False, **_: Any
) -> bool:
    """Returns whether another prompt's answer is held to something else by these arguments of `held_answer`."""
    if schema_from_prompt or grounded or at_words:
        return True
    return schema is not None and has_span(write_schema(json_schema_of(schema)))


def has_span(schema: str) -> bool:
    """Returns whether a schema, as JSON, may ask for a stretch of the prompt's text."""
    return '"span"' in schema


def source_of(whole: str, task: PromptTask | None, tokenizer: TextTokenizer) -> SourceText:
    """Returns what values are taken from: of a message in a known form its text, else all of it.

    Raises ValueError for one that is too long.
    """
    text = whole if task is None or not task.text else task.text
    if len(text) > MAX_TEXT:
        raise ValueError(f"the text has {len(text):,} characters, must be 1 to {MAX_TEXT:,}: take a window of it")
    return tokenizer.source(text, whole.rindex(text) if task is None or not task.text else task.start)
