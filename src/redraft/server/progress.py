"""What the engine's events mean for one answer in progress: its text, its numbers and its likeliest tokens."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from redraft import engine
from redraft.answers import writing_of
from redraft.api import Model
from redraft.constraints.forced import ForcedTokens
from redraft.generation.modes import DRAFTED_MODES, is_greedy
from redraft.generation.result import ConstraintReport, DenoisingStep, Generation, Verification
from redraft.text import AnswerStream, Content, Delta, End, ReadPrompt, ScoredToken
from redraft.text.prompts.grounding import SourceText, Span, ground_answer
from redraft.text.trust.evidence import Trust, Writing, assess


@dataclass(frozen=True)
class StepUpdate:
    """A denoising step, numbered from 1, and the text that the answer's canvas would be if it stopped there.

    forced: of each position, whether a constraint leaves nothing else there; None without one.
    """

    step: DenoisingStep
    number: int
    text: str
    forced: list[bool] | None = None


@dataclass(frozen=True)
class RoundUpdate:
    """What a causal pass wrote: the tokens of a draft that it kept, its own behind them, and those that it rejected."""

    kept: tuple[int, ...]
    written: tuple[int, ...]
    rejected: tuple[int, ...]


NewsOfAnswer = Delta | StepUpdate | RoundUpdate | End


@dataclass(frozen=True)
class ChoiceUpdate:
    """News of the choice with this index."""

    index: int
    event: NewsOfAnswer


@dataclass
class ChoiceProgress:
    """One answer in progress.

    scores: of the prompt's tokens but the first, and of the one behind it, where they are asked for. has_stopped:
    whether the model ended it by itself, with an EOS. steps: of each canvas, or of each draft. causal_passes: those
    that wrote tokens, drafted_rounds of them over a draft. admitted_at, ended_at: times of time.perf_counter(), None
    until then. Once it has ended, warnings, trust: what may be wrong with it, and what is known about it; constraint:
    what one had to do; generation: None of one that a stop text ends. forced: tells which tokens of a draft a
    constraint forces. source: the text that its spans are of. spans: where each of its texts stands, once it has ended.
    """

    request: engine.Request
    prompt: ReadPrompt
    model: Model
    stream: AnswerStream
    top_logprobs: int | None
    scores: list[ScoredToken] = field(default_factory=list)
    has_stopped: bool = False
    steps: list[int] = field(default_factory=list)
    causal_passes: int = 0
    drafted_rounds: int = 0
    cached_tokens: int = 0
    admitted_at: float | None = None
    ended_at: float | None = None
    has_text: bool = False
    content: str = ""
    warnings: tuple[str, ...] = ()
    constraint: ConstraintReport | None = None
    trust: Trust | None = None
    generation: Generation | None = None
    forced: ForcedTokens | None = None
    source: SourceText | None = None
    spans: dict[str, Span] | None = None
    held_back: list[Delta] = field(default_factory=list)

    @property
    def tokens_written(self) -> int:
        """The tokens of the answer, the EOS included."""
        return self.stream.num_tokens + self.has_stopped

    @property
    def denoiser_passes(self) -> int:
        return sum(self.steps)

    @property
    def forwards(self) -> int:
        """The passes that it took, without those that encode a finished canvas."""
        return self.denoiser_passes + self.causal_passes

    @property
    def verification(self) -> Verification | None:
        """How its drafts were verified; None for other modes, and before the first tokens."""
        if self.generation is not None:
            return self.generation.verification
        if self.request.mode not in DRAFTED_MODES or not self.causal_passes:
            return None
        kept = self.tokens_written / self.causal_passes
        return Verification(self.causal_passes, self.drafted_rounds, self.denoiser_passes, kept)

    def read(self, event: engine.Event) -> Iterator[NewsOfAnswer]:
        """Yields what an event of the engine means; nothing after the end. Raises the error of a failed request."""
        for told in self._read(event):
            holds_back = self.source is not None and self.source.is_changed
            if holds_back and isinstance(told, Delta) and isinstance(told.part, Content):
                # Which of its letters are sent otherwise shows when it is whole.
                self.held_back.append(told)
                continue
            if isinstance(told, End) and self.source is not None:
                yield from self._ground(self.source)
            yield told

    def _ground(self, source: SourceText) -> Iterator[Delta]:
        """Finds the spans of an answer, which is whole; yields the content that was held back for it."""
        written = "".join(delta.part.text for delta in self.held_back if isinstance(delta.part, Content))
        items = () if self.generation is None else self.generation.items
        text, self.spans = ground_answer(self.content + written, source, self.prompt.stretches(items))
        if written:
            yield Delta(Content(text), tuple(token for delta in self.held_back for token in delta.tokens))

    def _read(self, event: engine.Event) -> Iterator[NewsOfAnswer]:
        if isinstance(event, engine.Failed):
            raise event.error
        if self.stream.has_ended:
            return
        if isinstance(event, engine.Admitted):
            self.cached_tokens, self.admitted_at = event.cached_tokens, event.at
        elif isinstance(event, engine.StepTaken):
            draft = event.step.draft.tolist()
            forced = None if self.forced is None else self.forced.of_draft(draft)
            yield StepUpdate(event.step, event.step.number, self.stream.draft(draft), forced)
        elif isinstance(event, engine.TokensScored):
            self.scores += scored_tokens(event, self.top_logprobs)
        elif isinstance(event, engine.CanvasCommitted):
            self._count(event)
            if self.forced is not None:
                self.forced.commit(event.token_ids)
            if self.request.mode in DRAFTED_MODES and self.request.drafts:
                yield _round_of(event)
            yield from self.stream.commit(event.token_ids, scored_tokens(event, self.top_logprobs))
        elif isinstance(event, engine.Finished):
            self.has_stopped = event.generation.finish_reason == "stop"
            self.generation = event.generation
            self.constraint = event.generation.constraint
            self._count_all(event.generation)
            yield from self.stream.finish(event.generation.finish_reason)

    def _count(self, event: engine.CanvasCommitted) -> None:
        if event.steps:
            self.steps.append(event.steps)
        if self.request.mode != "diffusion":
            self.causal_passes += 1
            self.drafted_rounds += bool(event.draft)

    def _count_all(self, generation: Generation) -> None:
        """Counts the passes of a whole answer: one of nothing but the EOS has told of no tokens, nor have parts."""
        if self.prompt.parts and self.request.mode == "diffusion":
            self.steps = list(generation.steps_per_canvas)
        if (found := generation.verification) is not None:
            self.causal_passes, self.drafted_rounds = found.rounds, found.drafted_rounds
            if rest := found.denoiser_passes - self.denoiser_passes:
                self.steps.append(rest)
        elif self.request.mode == "autoregressive":
            self.causal_passes = sum(generation.steps_per_canvas)

    def end(self, finish_reason: str) -> None:
        """Notes the time, what may be wrong with the answer, and what is known about it."""
        self.ended_at = time.perf_counter()
        if self.request.mode == "scoring":
            # Nobody asked for an answer.
            return
        self.warnings = self.prompt.check(
            self.content,
            finish_reason,
            num_tokens=self.stream.num_tokens,
            steps_per_canvas=self.steps if self.request.mode == "diffusion" else (),
            max_steps=self.request.settings.steps,
            is_greedy=is_greedy(self.request.mode, self.request.settings.temperature),
            is_stopped=self.generation is None,
            is_held=self.request.constraint is not None,
            unread=0 if self.generation is None else self.generation.unread,
        )
        if self.generation is None:
            writing = Writing(mode=self.request.mode, finish_reason=finish_reason)
        else:
            writing = writing_of(self.request.mode, self.generation, self.request.settings)
        self.trust = assess(
            self.prompt, self.content, writing, self.model.tokenizer, calibration=self.model.calibration,
            is_held=self.request.constraint is not None,
        )  # fmt: skip


def _round_of(event: engine.CanvasCommitted) -> RoundUpdate:
    tokens, draft = event.token_ids, event.draft
    agreeing = next((i for i, (one, other) in enumerate(zip(tokens, draft, strict=False)) if one != other), len(draft))
    return RoundUpdate(kept=tokens[:agreeing], written=tokens[agreeing:], rejected=draft[agreeing:])


def scored_tokens(event: engine.CanvasCommitted | engine.TokensScored, top_logprobs: int | None) -> list[ScoredToken]:
    if event.top is None or top_logprobs is None:
        return []
    ids, scores = event.top.ids.tolist(), event.top.log_probs.tolist()
    # Of a canvas the likeliest is what was written: it commits its draft.
    own = event.log_probs or [row[0] for row in scores]
    return [
        ScoredToken(token, log_prob, tuple(zip(others[:top_logprobs], row[:top_logprobs], strict=True)))
        for token, log_prob, others, row in zip(event.token_ids, own, ids, scores, strict=False)
    ]
