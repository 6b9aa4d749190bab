"""The model behind the API: settings, metrics and slots from the start, the engine once it is loaded."""

import asyncio
import functools
import time

from redraft.async_engine import Engine
from redraft.server.constraints import Constraints
from redraft.server.generation import AdmissionSlots
from redraft.server.metrics import Metrics
from redraft.server.openai.errors import ApiError, retry_later
from redraft.server.settings import ServerSettings

EXPECTED_LOADING_SECONDS = 5
MAX_PROMPTS_ENCODING = 2


class Service:
    """What the routes share. Belongs to one event loop.

    slots: reserved before a prompt is read. encoding: prompts being tokenized; those that wait for it hold nothing but
    their text. constraints: built before a prompt is tokenized. is_draining: whether new requests are refused because
    the server is shutting down.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.slots = AdmissionSlots(settings.max_held, self.metrics)
        self.encoding = asyncio.Semaphore(MAX_PROMPTS_ENCODING)
        self.is_draining = False
        self.created = int(time.time())
        self._engine: Engine | None = None

    def attach_engine(self, engine: Engine, name: str) -> None:
        """Takes the loaded model; from now on requests are answered. ValueError for a max_context it cannot have."""
        config = engine.model.transformer.config
        self.name = self.settings.served_name or name
        self.max_context = self.settings.max_context or config.max_context
        if not config.canvas_length < self.max_context <= config.max_context:
            raise ValueError(
                f"max_context is {self.max_context}, must be more than the model's canvas of {config.canvas_length} "
                f"and at most its context of {config.max_context}"
            )
        self.constraints = Constraints(engine.model, self.metrics)
        self.token_text = functools.cache(engine.model.tokenizer.token_text)
        self.metrics.watch("requests_running", "Answers in progress", lambda: engine.state.running)
        self.metrics.watch("requests_waiting", "Answers that wait to be admitted", lambda: engine.state.waiting)
        self.metrics.watch("prefix_cache_tokens", "Prompt tokens in the cache", lambda: engine.state.cached_tokens)
        self.metrics.watch("prefix_cache_limit", "Capacity of the cache", lambda: engine.limits.prefix_tokens)
        self._engine = engine

    def close(self) -> None:
        """Ends what runs beside the engine."""
        if self._engine is not None:
            self.constraints.close()

    @property
    def engine(self) -> Engine:
        assert self._engine is not None
        return self._engine

    def unavailable_reason(self) -> ApiError | None:
        """Returns why requests are refused now, or None if they are answered."""
        if self.is_draining:
            return retry_later(503, "the server is shutting down", 10, "draining")
        if self._engine is None:
            return retry_later(503, "the model is loading", EXPECTED_LOADING_SECONDS, "loading")
        if self._engine.broken is not None:
            return retry_later(503, "the engine has stopped; the server is exiting", 30, "engine_stopped")
        return None
