"""One answer under way: the engine's events become pieces of text, of thought, tool calls, drafts, and an end."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from redraft import engine
from redraft.async_engine import Engine
from redraft.generation import DenoisingStep, cut_canvas
from redraft.text import Content, Part, ToolCall, Transcript

DELTA_TOKENS = 8
"""A canvas comes whole, and is told in pieces of so many tokens."""


@dataclass(frozen=True)
class TokenTold:
    """A token of the answer and what the model gave it and the likeliest others: (id, log-probability)."""

    id: int
    log_prob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Delta:
    """The next part of the answer, and the tokens that have become certain with it, those without text included."""

    part: Part
    tokens: tuple[TokenTold, ...] = ()


@dataclass(frozen=True)
class StepTold:
    """A denoising step, numbered from 1, and the text the answer's canvas would be if it ended here."""

    step: DenoisingStep
    number: int
    text: str


@dataclass(frozen=True)
class Ended:
    """finish_reason: "stop", "length" or "tool_calls"."""

    finish_reason: str


Told = Delta | StepTold | Ended


@dataclass
class Counted:
    """What an answer took so far. written: its tokens, the EOS included; steps: of each canvas.

    begun: the time of time.perf_counter() at which it left the queue, None as long as it waits. heard: whether any of
    it has been told.
    """

    tokens: int = 0
    written: int = 0
    steps: list[int] = field(default_factory=list)
    cached: int = 0
    begun: float | None = None
    heard: bool = False


class Choice:
    """The state of one answer. `stops`: texts that end its content and are cut off; None for `top` tells no tokens."""

    def __init__(self, within: Engine, request: engine.Request, stops: Sequence[str], top: int | None) -> None:
        model = within.model
        self.request = request
        self.counted = Counted()
        self._tokenizer = model.tokenizer
        self._eos_ids = model.transformer.config.eos_ids
        self._transcript = Transcript(model.tokenizer)
        self._cutter = StopCutter(stops)
        self._top = top
        self._tokens: list[TokenTold] = []
        self._calls = False
        self.ended = False

    def take(self, event: engine.Event) -> Iterator[Told]:
        """What an event means. Raises the error of a request that failed; nothing is told after the end."""
        if isinstance(event, engine.Failed):
            raise event.error
        if self.ended:
            return
        if isinstance(event, engine.Admitted):
            self.counted.cached, self.counted.begun = event.cached_tokens, event.at
        elif isinstance(event, engine.StepTaken):
            settings, step = self.request.settings, event.step
            part, _ = cut_canvas(step.draft.tolist(), self._eos_ids, settings.max_new_tokens - self.counted.tokens)
            yield StepTold(step, settings.steps - step.step + 1, self._tokenizer.decode(part))
        elif isinstance(event, engine.CanvasCommitted):
            yield from self._committed(event)
        elif isinstance(event, engine.Finished):
            self.counted.written += event.generation.finish_reason == "stop"
            yield from self._deltas(self._transcript.finish())
            yield from self._end(event.generation.finish_reason)

    def _committed(self, event: engine.CanvasCommitted) -> Iterator[Told]:
        if event.steps:
            self.counted.steps.append(event.steps)
        told = _tokens_told(event, self._top)
        # Where it matters which token brought which text, they come one by one.
        size = 1 if self._top is not None or self._cutter.stops else DELTA_TOKENS
        for start in range(0, len(event.token_ids), size):
            group = event.token_ids[start : start + size]
            self.counted.tokens += len(group)
            self.counted.written += len(group)
            self._tokens += told[start : start + size]
            yield from self._deltas(self._transcript.push(group))
            if self._cutter.found:
                yield from self._end("stop")
                return

    def _deltas(self, parts: Sequence[Part]) -> Iterator[Delta]:
        """What parts of the transcript tell; nothing behind a stop text."""
        for part in parts:
            # Before a part of another kind: what was held back can become no stop text any more.
            text = self._cutter.push(part.text) if isinstance(part, Content) else self._cutter.finish()
            if text:
                yield self._delta(Content(text))
            if self._cutter.found:
                return
            if not isinstance(part, Content):
                self._calls |= isinstance(part, ToolCall) and part.complete
                yield self._delta(part)

    def _end(self, finish_reason: str) -> Iterator[Told]:
        self.ended = True
        if self._cutter.found:
            finish_reason, self._tokens = "stop", []
        rest = self._cutter.finish()
        if rest or self._tokens:
            yield self._delta(Content(rest))
        yield Ended("tool_calls" if self._calls and finish_reason == "stop" else finish_reason)

    def _delta(self, part: Part) -> Delta:
        tokens, self._tokens = tuple(self._tokens), []
        return Delta(part, tokens)


class StopCutter:
    """Cuts a text that arrives in pieces off before the first of some texts, and holds back what may become one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops = tuple(stops)
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """What is certain not to be of a stop text; nothing any more when one was found."""
        if not self.stops:
            return text
        if self.found:
            return ""
        text = self._held + text
        places = [at for stop in self.stops if (at := text.find(stop)) >= 0]
        if places:
            self.found, self._held = True, ""
            return text[: min(places)]
        keep = max(_overlap(text, stop) for stop in self.stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """What was held back and has become no stop text."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of a text are the beginning of `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-n:])), 0)


def _tokens_told(event: engine.CanvasCommitted, top: int | None) -> list[TokenTold]:
    if event.top is None or top is None:
        return []
    # The likeliest is what was written: a canvas commits its draft.
    rows = zip(event.token_ids, event.top.ids.tolist(), event.top.log_probs.tolist(), strict=False)
    return [
        TokenTold(token, scores[0], tuple(zip(ids[:top], scores[:top], strict=True))) for token, ids, scores in rows
    ]
