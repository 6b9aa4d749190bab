"""A plugin of the `llm` command (https://llm.datasette.io): models `redraft/...`, which a `redraft serve` answers.

It looks for the server at REDRAFT_URL, with the key of REDRAFT_API_KEY or `llm keys set redraft`.
"""

import json
import os
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import httpx2
import llm
from llm.parts import ReasoningPart, StreamEvent, TextPart
from pydantic import Field

URL_VARIABLE, KEY_VARIABLE, KEY_NAME = "REDRAFT_URL", "REDRAFT_API_KEY", "redraft"
USUAL_URL = "http://127.0.0.1:8000"
USUAL_MODEL = "bundled"
LISTING_SECONDS, ANSWER_SECONDS = 0.5, 600.0
CANVAS = ("steps", "entropy_bound", "t_min", "t_max", "canvas_length")


@llm.hookimpl
def register_models(register: Callable[..., None]) -> None:
    """What the server has, or, where there is none, the model that it would have: its prompts say what is wrong."""
    for name in _served() or [USUAL_MODEL]:
        register(Redraft(name), AsyncRedraft(name))


class _Shared:
    """What the model is asked, and with which options; the same for both kinds of model."""

    needs_key: str | None = KEY_NAME
    key_env_var: str | None = KEY_VARIABLE
    can_stream = True

    class Options(llm.Options):
        """What is left out is the checkpoint's own; the server says what is out of range."""

        max_tokens: int | None = Field(default=None, description="Cut the answer after so many tokens")
        temperature: float | None = Field(default=None, description="Scales the schedule; 0 takes the likeliest token")
        seed: int | None = Field(default=None, description="The same seed gives the same answer")
        stop: str | list[str] | None = Field(default=None, description="Text that ends the answer and is cut off")
        steps: int | None = Field(default=None, description="At most so many denoising steps for a canvas")
        entropy_bound: float | None = Field(default=None, description="Accept more positions a step, or fewer")
        t_min: float | None = Field(default=None, description="Temperature that the schedule falls to")
        t_max: float | None = Field(default=None, description="Temperature that the schedule starts from")
        canvas_length: int | None = Field(default=None, description="Tokens written at a time")

    def __init__(self, name: str) -> None:
        self.model_id = f"redraft/{name}"
        self._name = name

    def get_key(self, explicit_key: str | None = None) -> str | None:
        """None is a key too: most servers want none."""
        return llm.get_key(explicit_key=explicit_key, key_alias=KEY_NAME, env_var=KEY_VARIABLE)

    def request(self, prompt: llm.Prompt, key: str | None) -> dict[str, Any]:
        """Of a streamed chat completion, as the HTTP client is told it."""
        given = prompt.options.model_dump(exclude_none=True)
        canvas = {name: given.pop(name) for name in CANVAS if name in given}
        body = {"model": self._name, "messages": _messages(prompt), "stream": True, **given}
        body["stream_options"] = {"include_usage": True}
        if canvas:
            body["canvas"] = canvas
        return {"url": f"{_url()}/v1/chat/completions", "json": body, "headers": _headers(key)}


class Redraft(_Shared, llm.KeyModel):  # type: ignore[misc] # its Options are no subclass of those of llm.KeyModel
    """For `llm` and its Python interface."""

    def execute(
        self, prompt: llm.Prompt, stream: bool, response: Any, conversation: Any, key: str | None
    ) -> Iterator[str | StreamEvent]:
        """Always streamed: who asked for the whole is shown it when it is there."""
        answer = _Answer(response)
        try:
            with _client(httpx2.Client) as client, client.stream("POST", **self.request(prompt, key)) as told:
                if told.status_code != httpx2.codes.OK:
                    raise llm.ModelError(_said(told.read()))
                for line in told.iter_lines():
                    yield from answer.take(line)
        except httpx2.HTTPError as error:
            raise _failure(error) from error
        answer.end()


class AsyncRedraft(_Shared, llm.AsyncKeyModel):  # type: ignore[misc]
    """The same for event loops."""

    async def execute(
        self, prompt: llm.Prompt, stream: bool, response: Any, conversation: Any, key: str | None
    ) -> AsyncGenerator[str | StreamEvent, None]:
        """As Redraft has it."""
        answer = _Answer(response)
        try:
            async with (
                _client(httpx2.AsyncClient) as client,
                client.stream("POST", **self.request(prompt, key)) as told,
            ):
                if told.status_code != httpx2.codes.OK:
                    raise llm.ModelError(_said(await told.aread()))
                async for line in told.aiter_lines():
                    for piece in answer.take(line):
                        yield piece
        except httpx2.HTTPError as error:
            raise _failure(error) from error
        answer.end()


class _Answer:
    """What the lines of a streamed answer say."""

    def __init__(self, response: Any) -> None:
        self._response = response
        self._ended = False

    def take(self, line: str) -> Iterator[str | StreamEvent]:
        """The text and the thoughts of one line of server-sent events. ModelError where it tells of an error."""
        name, _, data = line.partition(":")
        data = data.strip()
        if name != "data":
            return
        if data == "[DONE]":
            self._ended = True
            return
        try:
            chunk = json.loads(data)
            if "error" in chunk:
                raise llm.ModelError(_said(data.encode()))
            if usage := chunk.get("usage"):
                taken, written = usage.pop("prompt_tokens"), usage.pop("completion_tokens")
                usage.pop("total_tokens", None)
                self._response.set_usage(input=taken, output=written, details=usage)
            for choice in chunk["choices"]:
                if thought := choice["delta"].get("reasoning_content"):
                    yield StreamEvent(type="reasoning", chunk=thought)
                if text := choice["delta"].get("content"):
                    yield text
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise llm.ModelError(f"{_url()} does not speak the protocol of `redraft serve`: {data[:100]!r}") from error

    def end(self) -> None:
        """After the last line. ModelError where it was not to be the last."""
        if not self._ended:
            raise llm.ModelError("the stream ended before the answer did")


def _messages(prompt: llm.Prompt) -> list[dict[str, str]]:
    """The conversation so far, system prompt included. ModelError for what is no text."""
    messages = []
    for message in prompt.messages:
        texts = []
        for part in message.parts:
            if isinstance(part, TextPart):
                texts.append(part.text)
            elif not isinstance(part, ReasoningPart):
                raise llm.ModelError(f"redraft reads text, and no {type(part).__name__} of an earlier turn")
        messages.append({"role": message.role, "content": "".join(texts)})
    return messages


def _served() -> list[str]:
    """Names of the server's models; none where none answers, or not so: other commands of `llm` are to work then."""
    key = llm.get_key(key_alias=KEY_NAME, env_var=KEY_VARIABLE)
    try:
        with _client(httpx2.Client, LISTING_SECONDS) as client:
            listed = client.get(f"{_url()}/v1/models", headers=_headers(key))
            return [str(model["id"]) for model in listed.raise_for_status().json()["data"]]
    except (llm.ModelError, httpx2.HTTPError, ValueError, LookupError, TypeError):
        return []


def _client(kind: Callable[..., Any], seconds: float = ANSWER_SECONDS) -> Any:
    """A client that goes to this machine itself without a proxy, whatever the environment says."""
    try:
        here = httpx2.URL(_url()).host in ("localhost", "127.0.0.1", "::1")
    except httpx2.InvalidURL as error:
        raise llm.ModelError(f"{URL_VARIABLE} is {_url()!r}, which is no URL ({error}); like {USUAL_URL}") from error
    return kind(timeout=httpx2.Timeout(seconds, connect=min(seconds, 10.0)), trust_env=not here)


def _url() -> str:
    return (os.environ.get(URL_VARIABLE) or USUAL_URL).rstrip("/").removesuffix("/v1")


def _headers(key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def _failure(error: httpx2.HTTPError) -> llm.ModelError:
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.UnsupportedProtocol):
        return llm.ModelError(f"no server at {_url()}: start `redraft serve`, or set {URL_VARIABLE}")
    return llm.ModelError(f"the connection to {_url()} broke: {str(error) or type(error).__name__}")


def _said(body: bytes) -> str:
    """What an error's body says."""
    text = body.decode(errors="replace")
    try:
        text = json.loads(text)["error"]["message"]
    except (ValueError, LookupError, TypeError):
        text = text[:200]
    return f"{_url()}: {text}"
