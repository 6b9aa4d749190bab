"""A plugin of the `llm` command (https://llm.datasette.io): models `redraft/...`, which a `redraft serve` answers.

It looks for the server at REDRAFT_URL, with the key of REDRAFT_API_KEY or `llm keys set redraft`.
"""

import os
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import httpx2
import llm
from llm.parts import ReasoningPart, StreamEvent, TextPart
from pydantic import Field, create_model

from redraft import SETTINGS
from redraft.client.errors import RequestFailed
from redraft.client.stream import PROTOCOL_NAMES, Endpoint, StreamChunk, check_url, list_models

URL_VARIABLE, KEY_VARIABLE, KEY_NAME = "REDRAFT_URL", "REDRAFT_API_KEY", "redraft"
DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_MODEL = "bundled"
LISTING_SECONDS, ANSWER_SECONDS, CONNECT_SECONDS = 0.5, 600.0, 10.0
CANVAS_OPTIONS = [one.name for one in SETTINGS if one.name not in (*PROTOCOL_NAMES, "index")]
"""Sampler settings that are fields of "canvas" in a request. `llm` asks for one answer, so there is no choice."""

OPTION_FIELDS: dict[str, Any] = {
    PROTOCOL_NAMES.get(one.name, one.name): (one.type | None, Field(default=None, description=one.help))
    for one in SETTINGS
    if one.name != "index"
} | {"stop": (str | list[str] | None, Field(default=None, description="Text that ends the answer and is cut off."))}
# Options left out are the checkpoint's own; the server checks their ranges.
AnswerOptions: Any = create_model("AnswerOptions", __base__=llm.Options, **OPTION_FIELDS)


@llm.hookimpl
def register_models(register: Callable[..., None]) -> None:
    """Registers the server's models; without a server the default one, whose prompts then say what is wrong."""
    key = llm.get_key(key_alias=KEY_NAME, env_var=KEY_VARIABLE)
    try:
        names = list_models(f"{_server_url()}/v1", key=key, timeout=LISTING_SECONDS)
    except ValueError:
        names = [DEFAULT_MODEL]
    for name in names:
        register(Redraft(name), AsyncRedraft(name))


class _Shared:
    """What both kinds of model share: the options, and the request that is made of a prompt."""

    needs_key: str | None = KEY_NAME
    key_env_var: str | None = KEY_VARIABLE
    can_stream = True
    supports_schema = True

    Options = AnswerOptions

    def __init__(self, name: str) -> None:
        self.model_id = f"redraft/{name}"
        self._name = name

    def get_key(self, explicit_key: str | None = None) -> str | None:
        """Returns the key, or None: most servers need none."""
        return llm.get_key(explicit_key=explicit_key, key_alias=KEY_NAME, env_var=KEY_VARIABLE)

    def request(self, prompt: llm.Prompt, key: str | None) -> tuple[Endpoint, dict[str, Any]]:
        """Returns the server's endpoint and the request's fields, "prompt" among them. Raises llm.ModelError."""
        fields = prompt.options.model_dump(exclude_none=True)
        if canvas := {name: fields.pop(name) for name in CANVAS_OPTIONS if name in fields}:
            fields["canvas"] = canvas
        if prompt.schema is not None:
            # Strict: an answer that only nearly fits is none.
            named = {"name": "answer", "schema": prompt.schema, "strict": True}
            fields["response_format"] = {"type": "json_schema", "json_schema": named}
        timeout = httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
        try:
            check_url(_server_url(), name=URL_VARIABLE, example=DEFAULT_URL)
        except ValueError as error:
            raise llm.ModelError(str(error)) from error
        endpoint = Endpoint(url=f"{_server_url()}/v1", model=self._name, key=key, timeout=timeout, is_strict=True)
        return endpoint, {"prompt": _messages(prompt), **fields}


class Redraft(_Shared, llm.KeyModel):
    """A model for `llm` and its Python interface."""

    def execute(
        self, prompt: llm.Prompt, stream: bool, response: Any, conversation: Any, key: str | None
    ) -> Iterator[str | StreamEvent]:
        """Yields an answer's text and thoughts. Always streamed: with --no-stream `llm` collects them."""
        endpoint, request = self.request(prompt, key)
        with _model_errors():
            for chunk in endpoint.stream(**request):
                yield from _parts(chunk, response)


class AsyncRedraft(_Shared, llm.AsyncKeyModel):
    """The same for event loops."""

    async def execute(
        self, prompt: llm.Prompt, stream: bool, response: Any, conversation: Any, key: str | None
    ) -> AsyncGenerator[str | StreamEvent, None]:
        endpoint, request = self.request(prompt, key)
        with _model_errors():
            async with endpoint.connect() as connection, aclosing(connection.stream(**request)) as chunks:
                async for chunk in chunks:
                    for part in _parts(chunk, response):
                        yield part


def _parts(chunk: StreamChunk, response: Any) -> Iterator[str | StreamEvent]:
    """The thoughts and the text of a chunk; its token counts go to `llm`'s log, its warnings to standard error too."""
    if chunk.usage is not None:
        details = dict(chunk.usage)
        try:
            read, written = details.pop("prompt_tokens"), details.pop("completion_tokens")
        except KeyError as error:
            raise RequestFailed("not the protocol", f"its usage has no {error}") from error
        details.pop("total_tokens", None)
        response.set_usage(input=read, output=written, details=details)
    if chunk.warnings:
        response.response_json = {"warnings": list(chunk.warnings)}
        for warning in chunk.warnings:
            print(f"redraft: warning: {warning}", file=sys.stderr)
    if chunk.reasoning:
        yield StreamEvent(type="reasoning", chunk=chunk.reasoning)
    if chunk.content:
        yield chunk.content


def _messages(prompt: llm.Prompt) -> list[dict[str, str]]:
    """The conversation so far, with its system prompt. Raises llm.ModelError for what is not text."""
    messages = []
    for message in prompt.messages:
        texts = []
        for part in message.parts:
            if isinstance(part, TextPart):
                texts.append(part.text)
            elif not isinstance(part, ReasoningPart):
                raise llm.ModelError(f"redraft reads only text, and an earlier turn has a {type(part).__name__}")
        messages.append({"role": message.role, "content": "".join(texts)})
    return messages


def _server_url() -> str:
    return (os.environ.get(URL_VARIABLE) or DEFAULT_URL).rstrip("/").removesuffix("/v1")


@contextmanager
def _model_errors() -> Iterator[None]:
    try:
        yield
    except RequestFailed as error:
        cause, url = error.__cause__, _server_url()
        if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout):
            message = f"no server at {url}: start `redraft serve`, or set {URL_VARIABLE}"
        elif isinstance(cause, httpx2.HTTPError):
            message = f"the connection to {url} broke: {error}"
        elif error.kind == "not the protocol":
            message = f"{url} does not speak the protocol of `redraft serve`: {error}"
        else:
            message = f"{url}: {error}"
        raise llm.ModelError(message) from error
