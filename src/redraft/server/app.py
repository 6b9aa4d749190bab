"""The application: routes, and the life of the model behind them."""

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from redraft.async_engine import Engine
from redraft.server.answering import Answering, Places
from redraft.server.asked import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    Generating,
    StreamOptions,
    TokenizeRequest,
)
from redraft.server.asking import Asked, Asking, check_model
from redraft.server.bodies import StrictRoute
from redraft.server.edge import Edge, answer_error
from redraft.server.errors import ApiError, ErrorBody, from_http, from_validation, refused, retry_later
from redraft.server.metrics import CONTENT_TYPE, Metrics
from redraft.server.pages import INDEX, Pages
from redraft.server.sending import EventStream, until_gone
from redraft.server.settings import ServerSettings
from redraft.server.shapes import ChatShape, Shape, TextShape, TokenTexts, gathered, streamed
from redraft.server.told import (
    CanvasDefaults,
    CardTold,
    ChatCompletion,
    Detokenized,
    Health,
    ModelList,
    ModelTold,
    TextCompletion,
    Tokenized,
)

EXPECTED_LOADING_SECONDS = 5
READ_AT_ONCE = 2


class Served:
    """The engine, once it is there, and what may be asked of it. Belongs to one event loop."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.places = Places(settings.places, self.metrics)
        # Prompts that are read at a time: all that wait for that hold nothing but their text.
        self.reading = asyncio.Semaphore(READ_AT_ONCE)
        self.draining = False
        self.created = int(time.time())
        self._engine: Engine | None = None

    def begin(self, engine: Engine, name: str) -> None:
        """The model is loaded: from now on it can be asked. ValueError for a max_context that it cannot have."""
        config = engine.model.transformer.config
        self.name = self.settings.served_name or name
        self.max_context = self.settings.max_context or config.max_context
        if not config.canvas_length < self.max_context <= config.max_context:
            raise ValueError(
                f"max_context is {self.max_context}, must be more than the model's canvas of {config.canvas_length} "
                f"and at most its context of {config.max_context}"
            )
        self.asking = Asking(engine, self.max_context)
        self.texts = TokenTexts(engine.model.tokenizer)
        self.metrics.watch("requests_running", "Answers in work", lambda: engine.state.running)
        self.metrics.watch("requests_waiting", "Answers that wait for work to begin", lambda: engine.state.waiting)
        self.metrics.watch("prefix_cache_tokens", "Tokens kept for prompts", lambda: engine.state.cached_tokens)
        self.metrics.watch("prefix_cache_limit", "Most tokens kept", lambda: engine.limits.prefix_tokens)
        self._engine = engine

    @property
    def engine(self) -> Engine:
        assert self._engine is not None
        return self._engine

    def unready(self) -> ApiError | None:
        """Why it cannot be asked now, or None."""
        if self.draining:
            return retry_later(503, "the server is being shut down", 10, "draining")
        if self._engine is None:
            return retry_later(503, "the model is being loaded", EXPECTED_LOADING_SECONDS, "loading")
        if self._engine.broken is not None:
            return retry_later(503, "the engine has stopped; the server ends", 30, "engine_stopped")
        return None

    def described(self) -> ModelTold:
        """The model as the API lists it."""
        model = self.engine.model
        defaults, card = model.defaults.flat(), model.card
        return ModelTold(
            id=self.name,
            created=self.created,
            max_model_len=self.max_context,
            canvas=CanvasDefaults(
                canvas_length=defaults["canvas_length"] or model.transformer.config.canvas_length,
                steps=defaults["steps"],
                entropy_bound=defaults["entropy_bound"],
                t_min=defaults["t_min"],
                t_max=defaults["t_max"],
                temperature=defaults["temperature"],
                max_tokens=min(defaults["max_new_tokens"], self.max_context),
            ),
            card=CardTold(
                purpose=card.purpose, limits=card.limits, examples=list(card.examples), single_turn=card.single_turn
            ),
        )


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": description}
    for status, description in {
        400: "Malformed, or asks for what cannot be",
        401: "No key, or a wrong one",
        403: "Called by a name that is not this server's",
        404: "No such model or page",
        405: "No such method here",
        408: "The body came too slowly",
        413: "The body is too long",
        415: "The body is of another type than application/json",
        429: "As many requests are held as may be: ask again after Retry-After seconds",
        500: "An error of the server's own, or of the model's",
        503: "Loading, or being shut down",
    }.items()
}


def create_app(served: Served) -> ASGIApp:
    """All routes for what is served, with everything a request passes before them."""
    app = FastAPI(
        title="redraft", version=version("redraft"), docs_url=None, redoc_url=None, responses=ERRORS,
        redirect_slashes=False,
        description="DiffusionGemma behind OpenAI's API. See docs/serving.md.",
    )  # fmt: skip
    app.router.route_class = StrictRoute
    app.add_exception_handler(HTTPException, _refuse_http)
    app.add_exception_handler(RequestValidationError, _refuse_body)
    app.add_exception_handler(Exception, _leave_to_edge)
    _add_generation(app, served)
    _add_tokens(app, served)
    _add_facts(app, served)
    _without_422(app)
    wrapped: ASGIApp = Edge(app, served.settings, served.metrics, served.unready)
    if served.settings.cors_origins:
        wrapped = CORSMiddleware(
            wrapped, allow_origins=served.settings.cors_origins, allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["X-Request-Id", "Retry-After"],
        )  # fmt: skip
    return wrapped


# Not in a thread, as the framework would have it of functions that are not async.
async def _refuse_http(request: Request, error: Any) -> Response:
    return _refused(request, from_http(error))


async def _refuse_body(request: Request, error: Any) -> Response:
    return _refused(request, from_validation(error.errors(), error.body))


def _refused(request: Request, error: ApiError) -> Response:
    if error.code is not None:
        # Not the message, nor the parameter: both may hold what was asked, which is no business of the log's.
        request.state.facts["error"] = error.code
    return answer_error(error)


async def _leave_to_edge(_: Request, error: Exception) -> Response:
    """The framework would answer in its own words, even those who have gone."""
    raise error


def _add_generation(app: FastAPI, served: Served) -> None:
    one = {
        "type": "object", "required": ["data"],
        "properties": {"data": {"type": "string"}, "event": {"enum": ["draft", "message"]}},
    }  # fmt: skip
    stream: dict[int | str, dict[str, Any]] = {
        200: {"content": {"text/event-stream": {"itemSchema": one}}, "description": "Or, with stream, events"}
    }

    @app.post("/v1/chat/completions", response_model=ChatCompletion, responses=stream)
    async def chat(request: Request, asked: ChatRequest) -> Response:
        """Answers a conversation."""
        shape = ChatShape(served.name, served.texts, logprobs=bool(asked.logprobs))
        return await _answer(served, request, asked, shape, lambda: served.asking.chat(asked), asked.choices)

    @app.post("/v1/completions", response_model=TextCompletion, responses=stream)
    async def complete(request: Request, asked: CompletionRequest) -> Response:
        """Goes on from a text as it stands."""
        shape = TextShape(served.name, served.texts, logprobs=asked.logprobs is not None)
        count = asked.choices * len(asked.prompts)
        return await _answer(served, request, asked, shape, lambda: served.asking.completion(asked), count)


async def _answer(
    served: Served, request: Request, asked: Generating, shape: Shape, ask: Callable[[], Asked], count: int
) -> Response:
    """Takes places, then tokenizes, then generates; an answer is worked on as long as somebody listens."""
    check_model(asked.model, served.name)
    facts = request.state.facts
    if asked.user is not None:
        facts["user"] = repr(asked.user)
    if served.settings.log_prompts:
        facts["asked"] = asked.model_dump_json(include={"messages", "prompt"})
    with ExitStack() as held:
        held.enter_context(served.places.take(count, autoregressive=asked.canvas.autoregressive))
        async with served.reading:
            prepared = await asyncio.to_thread(ask)
        answering = Answering(served.engine, prepared, served.metrics, request.state.request_id)
        held.callback(_note_usage, answering, facts)
        held.enter_context(answering)
        if not asked.stream:
            response = _json(await until_gone(request.receive, gathered(shape, answering)))
        else:
            options = asked.stream_options or StreamOptions()
            response = EventStream(streamed(shape, answering, prepared.alternatives, options))
        # From here on it is the response that holds them: what is not sent has not ended.
        return _Holding(response, held.pop_all())


class _Holding(Response):
    """A response that holds something until it has been sent, or cannot be."""

    def __init__(self, response: Response, held: ExitStack) -> None:
        super().__init__()
        self._response, self._held = response, held

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        with self._held:
            await self._response(scope, receive, send)


def _note_usage(answering: Answering, facts: dict[str, Any]) -> None:
    usage = answering.usage
    if answering.failure is not None:
        facts["error"] = answering.failure
    facts["prompt_tokens"] = usage.prompt_tokens
    facts["completion_tokens"] = usage.completion_tokens
    facts["denoising_steps"] = usage.denoising_steps


def _json(body: BaseModel) -> Response:
    return Response(body.model_dump_json(exclude_none=True), media_type="application/json")


def _add_tokens(app: FastAPI, served: Served) -> None:
    @app.post("/tokenize", response_model=Tokenized)
    async def tokenize(asked: TokenizeRequest) -> Response:
        """Token ids of a text, or of a conversation as the chat template writes it."""
        check_model(asked.model, served.name)
        if (asked.prompt is None) == (asked.messages is None):
            raise refused("send either a prompt or messages", "prompt")
        if asked.messages is not None and "add_special_tokens" in asked.model_fields_set:
            raise refused("add_special_tokens goes with a prompt, not with messages", "add_special_tokens")

        def encode() -> list[int]:
            if asked.messages is not None:
                return served.asking.conversation(asked.messages)
            model = served.engine.model
            try:
                assert asked.prompt is not None
                served.asking.check_length(asked.prompt, "prompt")
                encode = model.encode_plain if asked.add_special_tokens else model.tokenizer.encode
                return encode(asked.prompt)
            except ValueError as error:
                raise refused(str(error), "prompt", "invalid_value") from error

        async with served.reading:
            ids = await asyncio.to_thread(encode)
        return _json(Tokenized(tokens=ids, count=len(ids), max_model_len=served.max_context))

    @app.post("/detokenize", response_model=Detokenized)
    async def detokenize(asked: DetokenizeRequest) -> Response:
        """The text of token ids, control tokens as their names."""
        check_model(asked.model, served.name)
        tokenizer = served.engine.model.tokenizer
        try:
            text = await asyncio.to_thread(tokenizer.decode, asked.tokens, skip_special=False)
        except ValueError as error:
            raise refused(str(error), "tokens", "invalid_value") from error
        return _json(Detokenized(prompt=text))


def _add_facts(app: FastAPI, served: Served) -> None:
    pages = Pages()

    @app.get("/v1/models", response_model=ModelList)
    async def models() -> Response:
        """The model, its limits, what it does without being told, and what it says of itself."""
        return _json(ModelList(data=[served.described()]))

    @app.get("/v1/models/{model:path}", response_model=ModelTold)
    async def model(model: str) -> Response:
        """The same of one model."""
        check_model(model, served.name)
        return _json(served.described())

    @app.get("/health/live", response_model=Health)
    async def live() -> Response:
        """The process runs. The one route that wants no key."""
        return _json(Health(status="ok"))

    # By the first name other servers have it, and load tools look there.
    @app.get("/health", response_model=Health)
    @app.get("/health/ready", response_model=Health)
    async def ready() -> Response:
        """Requests are taken: the model is loaded, and the server is not being shut down."""
        return _json(Health(status="ready"))

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(served.metrics.exposition(), headers={"Content-Type": CONTENT_TYPE})

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return pages.get(INDEX)

    @app.get("/page/{name}", include_in_schema=False)
    async def page(name: str) -> Response:
        return pages.get(name)


def _without_422(app: FastAPI) -> None:
    """The framework's document says 422 of bodies that are refused; ours are refused with 400, as OpenAI's are."""
    for path in (document := app.openapi())["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
