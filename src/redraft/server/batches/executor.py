"""The engine of this process as a place where a batch's rows are answered, each as the API would answer it."""

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any

from pydantic import BaseModel, ValidationError

from redraft.api import Model
from redraft.async_engine import Engine
from redraft.batch.executors.protocol import ExecutorFailed, Outcome, answered, failed
from redraft.batch.requests import CHAT_URL, JobRow
from redraft.server.openai import chat, completions
from redraft.server.openai.answers import Asked, answer_whole
from redraft.server.openai.errors import ApiError, from_validation
from redraft.server.openai.requests import ChatRequest, CompletionRequest
from redraft.server.openai.responses_api import endpoint as responses
from redraft.server.openai.responses_api.protocol import ResponsesRequest
from redraft.server.service import Service
from redraft.server.settings import ServerSettings

PREFETCH_FACTOR = 2
"""As many times the requests that the engine works on are given to it, so that it never runs dry."""

ENDPOINTS: Mapping[str, tuple[type[BaseModel], Callable[[Service, Any], Asked]]] = {
    CHAT_URL: (ChatRequest, chat.ask),
    "/v1/completions": (CompletionRequest, completions.ask),
    "/v1/responses": (ResponsesRequest, responses.ask),
}


class ServiceExecutor:
    """Answers rows with the engine of a service, in its event loop, past the slots that HTTP's requests have."""

    def __init__(self, service: Service, in_flight: int) -> None:
        self._service, self.in_flight = service, in_flight

    async def answer(self, row: JobRow) -> Outcome:
        service = self._service
        try:
            asked = ENDPOINTS[row.url][1](service, parse_body(row.url, row.body))
            response = await answer_whole(service, asked, f"req_{row.digest()}")
            return answered(response.model_dump(mode="json", exclude_none=True))
        except ApiError as error:
            if (broken := service.engine.broken) is not None:
                raise ExecutorFailed(f"the engine has stopped: {broken!r}") from broken
            if error.status_code == 503:
                raise ExecutorFailed(error.detail) from error
            kind = error.code or error.body.error.type
            return failed(kind, error.detail, status=error.status_code, body=error.body.model_dump(mode="json"))


def parse_body(url: str, body: Mapping[str, Any]) -> Any:
    """Returns the request that a body is. Raises ApiError for what the API would refuse with any model."""
    try:
        return ENDPOINTS[url][0].model_validate(body)
    except ValidationError as error:
        found = [{**one, "loc": ("body", *one["loc"])} for one in error.errors()]
        raise from_validation(found, url, body) from None


def check_body(url: str, body: Mapping[str, Any], *, models: Collection[str]) -> None:
    """Raises ValueError for a body that the API would refuse, before the models of these names are loaded."""
    try:
        name = parse_body(url, body).model
    except ApiError as error:
        raise ValueError(error.detail) from None
    if name is not None and name not in models:
        raise ValueError(f"model is {name!r}, must be {' or '.join(map(repr, models))}, or left out")


@asynccontextmanager
async def local_executor(
    load: Callable[[], Model], settings: Mapping[str, Any], name: str
) -> AsyncIterator[ServiceExecutor]:
    """Loads a model and gives what answers rows with it until the end of the block.

    settings: of all rows. name: what rows call the model by; its adapters are models of their own names.
    """
    model = load()
    with Engine(model, **Engine.context_limits(model, settings)) as engine:
        service = Service(ServerSettings())
        service.attach_engine(engine, name)
        try:
            yield ServiceExecutor(service, PREFETCH_FACTOR * engine.limits.admitted_requests)
        finally:
            service.close()
