"""The engine without a thread: requests go in, each `step` runs one forward, events come out."""

import time
from collections.abc import Callable

from redraft.engine.costs import Load
from redraft.engine.events import Admitted, Cancelled, Event, Failed, Finished
from redraft.engine.modes.causal import Causal
from redraft.engine.modes.diffusion import Diffusion
from redraft.engine.modes.scoring import Scoring
from redraft.engine.prefix_cache import PrefixCache
from redraft.engine.request import Request
from redraft.engine.runner import ChunkResult, run_forward
from redraft.engine.scheduler import Limits, Scheduler
from redraft.engine.sequence import Chunk, DecodingMode, Phase, Sequence
from redraft.model.cache import KVCache
from redraft.model.transformer import Transformer


class EngineCore:
    """Many requests at once, each answered token for token as `generation/` would answer it alone.

    For one caller at a time; `EngineThread` gives it a thread.
    """

    def __init__(
        self, model: Transformer, limits: Limits | None = None, *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.model, self._clock = model, clock
        self.limits = limits or Limits()
        self.prefixes = PrefixCache(self.limits.prefix_tokens)
        self.scheduler = Scheduler(self.limits)
        config, device = model.config, model.embed_tokens.weight.device
        self._causal = Causal(config, device)
        # By the names that requests have for them (`request.MODE_NAMES`).
        self._modes: dict[str, DecodingMode] = {
            "diffusion": Diffusion(config, device),
            **dict.fromkeys(("autoregressive", "verified", "auto"), self._causal),
            "scoring": Scoring(config, device),
        }
        self._held: dict[str, Sequence] = {}

    @property
    def held(self) -> tuple[str, ...]:
        """The ids of all requests that wait or are in work."""
        return tuple(self._held)

    def sequence(self, request: Request) -> Sequence:
        """Makes the state of a request. Changes nothing, and may be called from any thread.

        Raises ValueError for a request that cannot be answered, whatever else the engine holds.
        """
        mode, config = self._modes[request.mode], self.model.config
        mode.check(request)
        record, length = mode.record(request), mode.canvas_length(request)
        longest = len(request.prompt) + -(-record.room // max(1, length)) * max(1, length)
        sequence = Sequence(
            request=request,
            mode=mode,
            record=record,
            cache=KVCache(config),
            canvas_length=length,
            max_tokens=min(longest, config.max_context),
            is_background=request.is_background,
            adapter=self.model.adapter(request.adapter),
        )
        self.scheduler.check(sequence)
        return sequence

    def submit(self, request: Request | Sequence) -> None:
        """Takes a request on, or the sequence that was made of it.

        Raises ValueError as `sequence` does and for an id that is held; QueueFull where too many wait.
        """
        sequence = self.sequence(request) if isinstance(request, Request) else request
        id = sequence.request.id
        if id in self._held:
            raise ValueError(f"the engine already holds a request {id!r}; give each an id of its own")
        self.scheduler.submit(sequence)
        self._held[id] = sequence

    def cancel(self, id: str) -> list[Event]:
        """Gives a request up and frees all it held; its last event, or nothing where no such request is held."""
        if id not in self._held:
            return []
        self._release(self._held[id])
        return [Cancelled(id)]

    def step(self) -> list[Event]:
        """Runs one forward over what the scheduler chose; returns what happened, in order.

        Where a forward raises, each of its sequences is run alone, and only those fail that raise again.
        """
        events: list[Event] = []
        for sequence in self.scheduler.admit():
            request = sequence.request
            prompt = request.prompt[: sequence.mode.max_cached(request)]
            sequence.begin(*self.prefixes.find(prompt, sequence.adapter_digest))
            events.append(Admitted(request.id, time.perf_counter(), sequence.cache.length))
        admitted = self.scheduler.admitted
        for mode in {sequence.mode for sequence in admitted}:
            if isinstance(mode, Causal):
                mode.prepare(admitted)
        chunks = self.scheduler.plan()
        if not chunks:
            return events
        load = Load(len(chunks), sum(chunk.tokens for chunk in chunks), sum(chunk.canvas_rows for chunk in chunks))
        start = self._clock()
        events += self._run(chunks)
        self._causal.choice.costs.observe(load, self._clock() - start)
        return events

    def _run(self, chunks: list[Chunk]) -> list[Event]:
        try:
            results = run_forward(self.model, chunks)
        except Exception as error:
            if len(chunks) == 1:
                return self._fail(chunks[0].sequence, error)
            return [event for chunk in chunks for event in self._run([chunk])]
        return [event for result in results for event in self._take(result)]

    def _take(self, result: ChunkResult) -> list[Event]:
        sequence, outcome = result.chunk.sequence, result.outcome
        if outcome is not None and outcome.error is not None:
            return self._fail(sequence, outcome.error)
        sequence.cache = result.cache
        if result.chunk.encode and sequence.encoded(result.chunk.encode):
            self._publish(sequence)
            if outcome is None:
                sequence.record.lap(sequence.phase.value)
        if outcome is None:
            return []
        events = list(sequence.mode.take(sequence, outcome))
        if isinstance(events[-1] if events else None, Finished):
            self._release(sequence)
        return events

    def _publish(self, sequence: Sequence) -> None:
        """Offers what a sequence has encoded to others: its prompt, and in place of one commit the next."""
        tokens, prompt = sequence.committed, len(sequence.request.prompt)
        if sequence.phase is Phase.PREFILL:
            self.prefixes.publish(tokens, sequence.cache, adapter=sequence.adapter_digest)
        elif sequence.record.canvases and sequence.canvas_rows:
            before = len(tokens) - sequence.canvas_length
            instead_of = before if before > prompt else 0
            self.prefixes.publish(tokens, sequence.cache, adapter=sequence.adapter_digest, instead_of=instead_of)

    def _fail(self, sequence: Sequence, error: Exception) -> list[Event]:
        self._release(sequence)
        return [Failed(sequence.request.id, error)]

    def _release(self, sequence: Sequence) -> None:
        self.scheduler.remove(sequence)
        del self._held[sequence.request.id]
