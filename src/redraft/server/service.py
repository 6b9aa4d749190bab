"""The model behind the API: settings, metrics and slots from the start, the engine once it is loaded."""

import asyncio
import functools
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager

from redraft.api import Model
from redraft.async_engine import Engine
from redraft.generation.modes import Mode
from redraft.server.constraints import Constraints
from redraft.server.generation import AdmissionSlots
from redraft.server.metrics import Metrics
from redraft.server.openai.errors import ApiError, retry_later
from redraft.server.settings import ServerSettings

EXPECTED_LOADING_SECONDS = 5
MAX_PROMPTS_ENCODING = 2
POLL_SECONDS = 0.05


class Service:
    """What the routes share. Belongs to one event loop.

    slots: reserved before a prompt is read. encoding: prompts being tokenized; those that wait for it hold nothing but
    their text. constraints: built before a prompt is tokenized. is_draining: whether new requests are refused because
    the server is shutting down. closing: what is closed with the server, beside the engine.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.slots = AdmissionSlots(settings.max_held, self.metrics)
        self.encoding = asyncio.Semaphore(MAX_PROMPTS_ENCODING)
        self.is_draining = False
        self.closing = AsyncExitStack()
        self.created = int(time.time())
        self._engine: Engine | None = None
        self._adapters_in_use: Counter[str] = Counter()
        self._leaving: set[str] = set()

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
        self.mode_of(engine.model)
        if (rules := self.settings.rules) is not None:
            rules.check_trust(is_calibrated=engine.model.calibration is not None)
        self.constraints = Constraints(engine.model, self.metrics)
        if self.name in engine.model.adapters:
            raise ValueError(f"an adapter has the model's name, {self.name!r}; give it another one")
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

    @property
    def model_names(self) -> list[str]:
        """The names of the model and of its adapters, as requests have them."""
        return [self.name, *(name for name in self.engine.model.adapters if name not in self._leaving)]

    def model(self, name: str | None) -> Model:
        """Returns the model of a name, that without an adapter for None. Refuses others with 404.

        The name is compared and never looked up.
        """
        if name is None or name == self.name:
            return self.engine.model
        if name in (known := self.model_names):
            return self.engine.model.with_adapter(name)
        shown = re.sub(r"[^\x20-\x7e]", "?", name[:100])
        message = f"there is no model {shown!r}, only {', '.join(map(repr, known))}"
        raise ApiError(404, message, param="model", code="model_not_found")

    def mode_of(self, model: Model) -> Mode:
        """Returns how a model's answers are written where a request does not say. ValueError for an unknown mode."""
        return self.settings.mode or model.usual_mode

    def name_of(self, model: Model) -> str:
        """Returns what requests call a model by."""
        return model.adapter or self.name

    @contextmanager
    def using(self, adapter: str | None) -> Iterator[None]:
        """Goes around an answer with an adapter, which is not unloaded meanwhile."""
        if adapter is not None:
            self._adapters_in_use[adapter] += 1
        try:
            yield
        finally:
            if adapter is not None:
                self._adapters_in_use[adapter] -= 1

    async def unload_adapter(self, name: str) -> None:
        """Refuses new requests for an adapter from now on, and lets it go when its answers in progress are done."""
        self._leaving.add(name)
        try:
            while self._adapters_in_use[name]:
                await asyncio.sleep(POLL_SECONDS)
            await asyncio.to_thread(self.engine.model.unload_adapter, name)
        finally:
            self._leaving.discard(name)

    def unavailable_reason(self) -> ApiError | None:
        """Returns why requests are refused now, or None if they are answered."""
        if self.is_draining:
            return retry_later(503, "the server is shutting down", 10, "draining")
        if self._engine is None:
            return retry_later(503, "the model is loading", EXPECTED_LOADING_SECONDS, "loading")
        if self._engine.broken is not None:
            return retry_later(503, "the engine has stopped; the server is exiting", 30, "engine_stopped")
        return None


def served_name(name: str) -> str:
    """Returns what the API calls a model: the last part of its folder or name."""
    return name.rstrip("/").rpartition("/")[2] or name
