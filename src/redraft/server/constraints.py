"""What answers are held to: built in a process of its own, so that no other request waits for it, and kept."""

import asyncio
import hashlib
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from redraft.api import Model
from redraft.constraints.build import AutomatonCache, ConstraintSpec, Spec
from redraft.constraints.forced import ForcedTokens
from redraft.constraints.limits import BuildLimits
from redraft.constraints.process.builder import Builder, BuildRefused
from redraft.constraints.tokens import TokenAutomaton
from redraft.constraints.tool_calls import ChatSpec
from redraft.engine import Request
from redraft.generation.result import ConstraintReport
from redraft.server.metrics import Metrics
from redraft.server.openai.errors import bad_request, retry_later
from redraft.server.openai.responses import ConstraintInfo
from redraft.text.prompts.grounding import SourceText

BUILD_SECONDS = BuildLimits().seconds
MAX_WAIT_SECONDS = BUILD_SECONDS + 0.4
"""What a request waits at most until its constraint's turn comes. Its own build may last as the builder lets it."""

REFUSED_SECONDS = 60.0
"""For so long a refusal is told again without another build: on a busy machine one that takes all its time ends when
those who asked have been told to come again."""
MAX_REFUSED = 256

MIN_LOG_MASS = -1e9

CODES = {"schema": "invalid_json_schema", "too_large": "constraint_too_large"}
"""Of the errors that say why a constraint was not built."""


@dataclass(frozen=True)
class Wanted:
    """The constraint that a request asks for. param: the field that asks.

    fallback: what holds the answer instead, with a warning, where the constraint cannot be kept; None refuses that.
    OpenAI's clients expect so of a schema that is not strict: an answer as good as can be. source: the text that its
    spans are of.
    """

    spec: ConstraintSpec | ChatSpec
    param: str
    fallback: ConstraintSpec | ChatSpec | None = None
    source: SourceText | None = None


@dataclass(frozen=True)
class BuiltConstraint:
    """What a request's answers are held to. param: the field that asked. warnings: what it does not keep.

    source: the text that its spans are of.
    """

    automaton: TokenAutomaton
    param: str
    warnings: tuple[str, ...] = ()
    source: SourceText | None = None


class Constraints:
    """The constraints of a server's requests. Belongs to one event loop.

    One is built at a time. The process is started for the first, which waits for it.
    """

    def __init__(self, model: Model, metrics: Metrics) -> None:
        self._model, self._metrics = model, metrics
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="constraints")
        self._builder: Builder | None = None
        self._cache = AutomatonCache(build=self._build)
        self._refused: OrderedDict[bytes, tuple[float, str, str]] = OrderedDict()
        metrics.watch("constraint_hits", "Constraints that were there already", lambda: self._cache.hits)

    @property
    def pid(self) -> int | None:
        """The process that builds, once there is one."""
        return None if self._builder is None else self._builder.pid

    async def get(self, wanted: Wanted) -> BuiltConstraint:
        """Returns the constraint that a request asks for, built if need be.

        ApiError if it is refused, and, to try again later, if the builds of others take too long or no process builds.
        """
        try:
            try:
                return BuiltConstraint(await self._find_or_build(wanted.spec), wanted.param, source=wanted.source)
            except BuildRefused as error:
                if wanted.fallback is None:
                    raise
                told = f"{wanted.param} is kept only in part, since it is not strict: {error}"
                return BuiltConstraint(await self._find_or_build(wanted.fallback), wanted.param, (told,))
        except BuildRefused as error:
            raise bad_request(str(error), wanted.param, CODES.get(error.reason, "invalid_value")) from error
        except RuntimeError as error:
            # It may have been killed while it was started.
            self._metrics.constraint_refusals.labels("broken").inc()
            raise retry_later(503, f"{error}; try again later", 1, "constraints_unavailable") from error
        except TimeoutError:
            self._metrics.constraint_refusals.labels("busy").inc()
            message = "other constraints are being built: try again later, or send one that was sent before"
            raise retry_later(429, message, 1, "constraints_busy") from None

    async def _find_or_build(self, spec: ConstraintSpec | ChatSpec) -> TokenAutomaton:
        loop = asyncio.get_running_loop()
        if self._builder is None:
            await loop.run_in_executor(self._thread, self._start)
        if (held := self._cache.find(spec, self._model.vocabulary)) is not None:
            return held
        until, message, reason = self._refused.get(_digest(spec), (0.0, "", ""))
        if time.monotonic() < until:
            self._metrics.constraint_refusals.labels(reason).inc()
            raise BuildRefused(message, reason)
        has_begun = asyncio.Event()

        def find_or_build() -> TokenAutomaton:
            loop.call_soon_threadsafe(has_begun.set)
            return self._cache.get(spec, self._model.vocabulary)

        built = loop.run_in_executor(self._thread, find_or_build)
        try:
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                await has_begun.wait()
            return await built
        finally:
            # What nobody waits for any more is not begun.
            built.cancel()

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._builder is not None:
            self._builder.stop()

    def _start(self) -> None:
        if self._builder is None:
            builder = Builder(self._model.vocabulary, seconds=BUILD_SECONDS)
            builder.start()
            self._builder = builder

    def _build(self, spec: Spec, *_: object) -> TokenAutomaton:
        assert isinstance(spec, ConstraintSpec | ChatSpec)
        assert self._builder is not None
        started = time.perf_counter()
        try:
            return self._builder.build(spec)
        except BuildRefused as error:
            self._metrics.constraint_refusals.labels(error.reason).inc()
            if error.reason != "broken":
                self._refused[_digest(spec)] = time.monotonic() + REFUSED_SECONDS, str(error), error.reason
                while len(self._refused) > MAX_REFUSED:
                    self._refused.popitem(last=False)
            raise
        finally:
            self._metrics.constraint_builds.observe(time.perf_counter() - started)


def _digest(spec: ConstraintSpec | ChatSpec) -> bytes:
    return hashlib.blake2b(repr(spec).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def forced_tokens(request: Request, model: Model) -> ForcedTokens | None:
    """Returns what tells the tokens that a request's constraint forces; None without one, or where no draft is sent."""
    if request.constraint is None or not request.drafts:
        return None
    return ForcedTokens(request.constraint, model.vocabulary)


def constraint_info(report: ConstraintReport | None) -> ConstraintInfo | None:
    """Returns what a constraint had to do as it is sent."""
    if report is None:
        return None
    # JSON has no infinity: a model may give a language no probability at all.
    log_mass = [max(round(mass, 2), MIN_LOG_MASS) for mass in report.log_mass]
    choices = None if report.choices is None else dict(report.choices)
    return ConstraintInfo(log_mass=log_mass, guided_steps=report.guided_steps, states=report.states, choices=choices)
