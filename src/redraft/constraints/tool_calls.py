"""Answers of a chat: a thought, text or something of a form, and calls of tools, as Gemma 4's template writes them.

    <|channel>thought\n ... <channel|>  ...  <|tool_call>call:NAME{key:<|"|>string<|"|>,n:3}<tool_call|>

Control tokens are bytes here that no text has (`language/marks.py`).
"""

from dataclasses import dataclass

from redraft.constraints.build import MAX_TEXT, ConstraintSpec
from redraft.constraints.json_schema.compiler import SchemaOptions, any_object, read_schema, schema_language
from redraft.constraints.json_schema.document import SchemaRefused
from redraft.constraints.language.characters import EVERY, Characters
from redraft.constraints.language.expression import Expression, Expressions
from redraft.constraints.language.marks import CALL, CALL_END, CHANNEL, CHANNEL_END

_ARGUMENTS = SchemaOptions(notation="call", whitespace="none")
THOUGHT = b"thought\n"


@dataclass(frozen=True, kw_only=True)
class ToolSpec:
    """A function that may be called. parameters: a JSON Schema as text; None for any arguments."""

    name: str
    parameters: str | None = None


@dataclass(frozen=True, kw_only=True)
class ChatSpec:
    """What an answer of a chat must be: `content`, or calls of `tools`.

    content: None for any text, behind which calls may follow. must_call: whether there are calls and nothing else.
    max_calls: None for any number. thinks: whether a thought may go before all of it.
    """

    content: ConstraintSpec | None = None
    tools: tuple[ToolSpec, ...] = ()
    must_call: bool = False
    max_calls: int | None = None
    thinks: bool = False

    def __post_init__(self) -> None:
        size = sum(len(tool.parameters or "") for tool in self.tools)
        if size > MAX_TEXT:
            raise ValueError(f"the parameters of all tools have {size:,} characters, the limit is {MAX_TEXT:,}")

    def language(self, table: Expressions) -> Expression:
        """Returns the language of the answers. ValueError for what is malformed or not supported."""
        text = table.repeat(Characters(table).any_of(EVERY))
        call = table.alternative(self._call(tool, table) for tool in self.tools)
        calls = table.repeat(call, 1, self.max_calls)
        if self.must_call:
            body = calls
        elif self.content is None:
            body = table.sequence(text, table.optional(calls))
        else:
            content = self.content.language(table)
            body = table.alternative([content, calls]) if self.tools else content
        if not self.thinks:
            return body
        thought = table.sequence(table.literal(CHANNEL + THOUGHT), text, table.literal(CHANNEL_END))
        return table.sequence(table.optional(thought), body)

    def _call(self, tool: ToolSpec, table: Expressions) -> Expression:
        if tool.parameters is None:
            arguments = any_object(table, _ARGUMENTS)
        else:
            schema = read_schema(tool.parameters)
            try:
                if isinstance(schema, dict):
                    if schema.get("type", "object") != "object":
                        raise SchemaRefused("", "type", 'arguments are an object: write "object", or leave it out')
                    schema = {"type": "object", **schema}
                arguments = schema_language(schema, table, _ARGUMENTS)
            except SchemaRefused as error:
                raise SchemaRefused(
                    error.pointer, error.keyword, f"{error.reason} (parameters of {tool.name})"
                ) from None
        return table.sequence(table.literal(CALL + b"call:" + tool.name.encode()), arguments, table.literal(CALL_END))
