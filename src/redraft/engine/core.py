"""The engine without a thread: requests go in, each `step` runs one forward, events come out."""

import time
from collections.abc import Callable
from dataclasses import replace

from redraft.engine.costs import Load
from redraft.engine.events import ENDS, Admitted, Cancelled, Event, Failed, Finished
from redraft.engine.modes.causal import Causal
from redraft.engine.modes.diffusion import Diffusion
from redraft.engine.modes.scoring import Scoring
from redraft.engine.parts import HeldRequest
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
        self._held: dict[str, HeldRequest] = {}

    @property
    def held(self) -> tuple[str, ...]:
        """The ids of all requests that wait or are in work."""
        return tuple(self._held)

    def hold(self, request: Request) -> HeldRequest:
        """Makes the state of a request. Changes nothing, and may be called from any thread.

        Raises ValueError for a request that cannot be answered, whatever else the engine holds.
        """
        if request.parts is None:
            return HeldRequest(request, [self._sequence(request)])
        parts = (replace(request, prompt=prompt, parts=None) for prompt in request.parts.prompts)
        return HeldRequest(request, [self._sequence(one, part) for part, one in enumerate(parts)])

    def _sequence(self, request: Request, part: int = 0) -> Sequence:
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
            part=part,
        )
        self.scheduler.check(sequence)
        return sequence

    def submit(self, request: Request | HeldRequest) -> None:
        """Takes a request on, or what `hold` made of it.

        Raises ValueError as `hold` does and for an id that is held; QueueFull where too many wait.
        """
        held = self.hold(request) if isinstance(request, Request) else request
        id = held.request.id
        if id in self._held:
            raise ValueError(f"the engine already holds a request {id!r}; give each an id of its own")
        self.scheduler.submit(*held.first)
        self._held[id] = held

    def cancel(self, id: str) -> list[Event]:
        """Gives a request up and frees all it held; its last event, or nothing where no such request is held."""
        if id not in self._held:
            return []
        self._release(id)
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
            held = self._held[request.id]
            if not held.is_admitted:
                held.is_admitted = True
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
                held = chunks[0].sequence.request.id in self._held
                return self._fail(chunks[0].sequence, error) if held else []
            return [event for chunk in chunks for event in self._run([chunk])]
        return [event for result in results for event in self._take(result)]

    def _take(self, result: ChunkResult) -> list[Event]:
        sequence, outcome = result.chunk.sequence, result.outcome
        if sequence.request.id not in self._held:
            # Another part of its request has failed in the same forward.
            return []
        if outcome is not None and outcome.error is not None:
            return self._fail(sequence, outcome.error)
        sequence.cache = result.cache
        if result.chunk.encode and sequence.encoded(result.chunk.encode):
            self._publish(sequence)
            if outcome is None:
                sequence.record.lap(sequence.phase.value)
        if outcome is None:
            return []
        told = list(sequence.mode.take(sequence, outcome))
        held = self._held[sequence.request.id]
        if isinstance(told[-1] if told else None, Finished):
            self.scheduler.remove(sequence)
            for part in held.next_of(sequence):
                self.scheduler.follow(part)
        events = held.take(sequence, told)
        if isinstance(events[-1] if events else None, ENDS):
            del self._held[held.request.id]
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
        self._release(sequence.request.id)
        return [Failed(sequence.request.id, error)]

    def _release(self, id: str) -> None:
        for sequence in self._held.pop(id).sequences:
            self.scheduler.remove(sequence)
