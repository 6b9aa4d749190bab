"""The constraint that a request's fields ask for."""

import dataclasses
from typing import Any

from redraft.constraints import tool_calls
from redraft.constraints.build import ConstraintSpec, spec_of
from redraft.constraints.json_schema.compiler import write_schema
from redraft.constraints.tool_calls import ChatSpec
from redraft.server.constraints import Wanted
from redraft.server.openai.errors import bad_request
from redraft.server.openai.fields.grounding import PromptText, needs_schema
from redraft.server.openai.fields.structured import JsonObjectFormat, JsonSchemaFormat, TextFormat
from redraft.server.openai.fields.tools import Function, NamedTool
from redraft.server.openai.messages import content_text
from redraft.server.openai.requests import ChatRequest, GenerationRequest
from redraft.server.service import Service
from redraft.text import part_tokens

OLD_NAMES = ("json", "regex", "choice", "grammar")
"""Fields of structured_outputs that were fields of the request itself, guided_json and so on."""

CALL_TOKENS = {"<|tool_call>", "<tool_call|>", '<|"|>'}
NO_PARAMETERS = {"type": "object", "properties": {}, "additionalProperties": False}


def wanted_of_chat(
    service: Service, request: ChatRequest, format_name: str = "response_format", prompt_name: str = "messages"
) -> Wanted | None:
    """Returns the constraint that a conversation asks for: on its content, its tool calls, or both; or None.

    format_name, prompt_name: what the endpoint calls the fields response_format and messages. ApiError for what
    contradicts itself or is too long.
    """
    *earlier, asked = ((one.role, content_text(one.content or "")) for one in request.messages)
    text = PromptText(service, request, prompt_name, asked[1], tuple(earlier))
    content, tokenizer = wanted_constraint(request, text, format_name), service.engine.model.tokenizer
    options = request.chat_template_kwargs
    thinks = options is not None and bool(options.enable_thinking)
    functions, must_call = _callable(request)
    if not functions or not tokenizer.template_reads("tools"):
        # What the template does not read is refused with the prompt.
        return _behind_thought(content) if content is not None and thinks else content
    is_single = request.parallel_tool_calls is False or isinstance(request.tool_choice, NamedTool)
    if not (must_call or is_single or content is not None or any(function.strict for function in functions)):
        return None
    if not part_tokens(tokenizer).keys() >= CALL_TOKENS:
        raise bad_request("this model has no tokens for tool calls, so they cannot be held to a form", "tools")

    def spec(*, is_least: bool) -> ChatSpec:
        least = None if content is None or not is_least else content.fallback
        return ChatSpec(
            content=None if content is None else _checked(least or content.spec),
            tools=tuple(_tool(function, is_free=is_least and not function.strict) for function in functions),
            must_call=must_call,
            max_calls=1 if is_single else None,
            thinks=thinks,
        )

    try:
        whole, least = spec(is_least=False), spec(is_least=True)
    except ValueError as error:
        raise bad_request(str(error), "tools", "invalid_value") from error
    fallback = None if least == whole else least
    # What the content is taken from stays what it was.
    return dataclasses.replace(content or Wanted(whole, "tools"), spec=whole, fallback=fallback)


def wanted_constraint(
    request: GenerationRequest, text: PromptText, format_name: str = "response_format"
) -> Wanted | None:
    """Returns the constraint on an answer's content, or None. ApiError for two, and for one that is too long.

    text: what its values are taken from, where it is grounded.
    """
    found = _of_fields(request, text, format_name)
    if found is not None:
        return text.ground(found)
    if request.grounded or request.at_words:
        raise needs_schema(request)
    return None


def _of_fields(request: GenerationRequest, text: PromptText, format_name: str) -> Wanted | None:
    """Returns the constraint that a request's fields say, before it is grounded."""
    outputs = request.structured_outputs
    given: dict[str, Any] = {}
    if outputs is not None:
        given = {f"structured_outputs.{name}": getattr(outputs, name) for name in (*OLD_NAMES[1:], "json_object")}
        given["structured_outputs.json"] = outputs.json_
    given |= {f"guided_{name}": getattr(request, f"guided_{name}") for name in OLD_NAMES}
    given[format_name] = None if isinstance(request.response_format, TextFormat) else request.response_format
    given["schema_from_prompt"] = request.schema_from_prompt
    named = {name: value for name, value in given.items() if value is not None and value is not False}
    if not named:
        return None
    if len(named) > 1:
        raise bad_request(f"{' and '.join(named)} are given: an answer has one constraint; send one", list(named)[1])
    ((param, value),) = named.items()
    try:
        if param == "schema_from_prompt":
            return Wanted(_spec("json", text.schema()), param)
        if param == format_name:
            return _of_format(value, param)
        return Wanted(_spec(param.replace("guided_", "structured_outputs.").partition(".")[2], value), param)
    except ValueError as error:
        raise bad_request(str(error), param, "invalid_value") from error


def _callable(request: ChatRequest) -> tuple[list[Function], bool]:
    """Returns the functions that may be called, and whether there must be a call."""
    choice, functions = request.tool_choice, [tool.function for tool in request.tools or ()]
    if choice == "none":
        return [], False
    if isinstance(choice, NamedTool):
        name = choice.function.name
        functions = [function for function in functions if function.name == name]
        if not functions:
            raise bad_request(f"tool_choice names {name!r}, which is not among tools", "tool_choice", "invalid_value")
    elif choice == "required" and not functions:
        raise bad_request('tool_choice "required" requires tools', "tool_choice", "invalid_value")
    return functions, choice not in (None, "auto")


def _tool(function: Function, *, is_free: bool) -> tool_calls.ToolSpec:
    """Returns a function as calls are held to it. is_free: whatever its arguments are."""
    parameters = function.parameters or {}
    # A function that has no parameters gets none, though its schema may not rule them out.
    is_empty = not parameters.get("properties") and parameters.keys() <= {*NO_PARAMETERS, "required"}
    text = write_schema(NO_PARAMETERS if is_empty else parameters)
    return tool_calls.ToolSpec(name=function.name, parameters=None if is_free else text)


def _behind_thought(content: Wanted) -> Wanted:
    fallback = None if content.fallback is None else ChatSpec(content=_checked(content.fallback), thinks=True)
    return dataclasses.replace(content, spec=ChatSpec(content=_checked(content.spec), thinks=True), fallback=fallback)


def _checked(spec: ConstraintSpec | ChatSpec) -> ConstraintSpec:
    assert isinstance(spec, ConstraintSpec)
    return spec


def _of_format(given: JsonObjectFormat | JsonSchemaFormat, param: str) -> Wanted:
    any_object = ConstraintSpec(kind="json_object")
    if isinstance(given, JsonObjectFormat) or given.json_schema.schema_ is None:
        return Wanted(any_object, param)
    schema = given.json_schema.schema_
    kind = schema.get("type", "object")
    fallback = any_object if kind == "object" else _spec("json", {"type": kind})
    return Wanted(_spec("json", schema), param, None if given.json_schema.strict else fallback)


def _spec(kind: str, value: Any) -> ConstraintSpec:
    if kind == "json_object":
        return ConstraintSpec(kind="json_object")
    if kind == "json" and isinstance(value, str):
        return ConstraintSpec(kind="json_schema", text=value)
    spec = spec_of(**{"schema" if kind == "json" else kind: value})
    assert spec is not None
    return spec
