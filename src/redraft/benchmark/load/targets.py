"""The targets of a load test: our engine in this process, or an endpoint of a server."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from redraft.api import Committed
from redraft.async_engine import Engine
from redraft.client.errors import RequestFailed
from redraft.engine import QueueFull

if TYPE_CHECKING:
    from redraft.client.stream import EndpointConnection


@dataclass(frozen=True)
class AnswerSize:
    """The tokens of an answer and the denoising steps of all its canvases; None where the target does not say."""

    tokens: int | None
    canvas_steps: int | None = None


class Target(Protocol):
    """What answers the prompts of a load test."""

    async def answer(self, prompt: str, on_text: Callable[[], None]) -> AnswerSize:
        """Answers one prompt; calls `on_text` when a part of the answer's text has come. Raises RequestFailed."""
        ...


class EngineTarget:
    """Our own engine in this process. `settings` are fields of SamplerSettings."""

    def __init__(self, engine: Engine, settings: Mapping[str, Any]) -> None:
        self._engine, self._settings = engine, settings

    async def answer(self, prompt: str, on_text: Callable[[], None]) -> AnswerSize:
        """Answers one prompt; each canvas is a part of the text. Raises RequestFailed."""
        try:
            answer = await self._engine.submit(prompt, **self._settings)
            async for event in answer:
                if isinstance(event, Committed):
                    on_text()
            result = await answer
            return AnswerSize(len(result.token_ids), sum(result.generation.steps_per_canvas))
        except QueueFull as error:
            raise RequestFailed("queue full", str(error)) from error
        except Exception as error:
            # Whatever became of one request, the others are still measured.
            raise RequestFailed(type(error).__name__, str(error)) from error


class EndpointTarget:
    """A server that speaks the OpenAI protocol. Tokens are its own count, if it reports usage.

    fields: of each request's body, beside the endpoint's own.
    """

    def __init__(self, connection: "EndpointConnection", fields: Mapping[str, Any] | None = None) -> None:
        self._connection, self._fields = connection, fields or {}

    async def answer(self, prompt: str, on_text: Callable[[], None]) -> AnswerSize:
        """Answers one prompt, streamed. Raises RequestFailed."""
        tokens = None
        async for chunk in self._connection.stream(prompt, **self._fields):
            if chunk.content or chunk.reasoning:
                on_text()
            if chunk.usage:
                tokens = int(chunk.usage["completion_tokens"])
        return AnswerSize(tokens)
