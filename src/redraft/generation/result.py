"""What a generation yields and returns, and the record it is made of.

C canvas length.
"""

import functools
import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ParamSpec

from torch import Tensor

from redraft.constraints.tokens import TokenAutomaton
from redraft.diffusion.start import CanvasStart
from redraft.generation.constrained import ConstrainedCanvas, check_constraint
from redraft.generation.pins import check_pins, constraint_with_pins
from redraft.model.readout.query import TopTokens
from redraft.utils.canvas import cut_canvas

Arguments = ParamSpec("Arguments")


@dataclass(frozen=True)
class DenoisingStep:
    """One denoiser pass and what the sampler made of it.

    canvas: index of the canvas; step: how many were to go, this one included; number: which of the canvas's it is, from
    1; draft, renoised int64 [C]: the argmax
    and the canvas that the next step reads; accepted bool [C]; entropy float32 [C] in nats; finished: no step follows;
    top: each position's likeliest tokens, where they were asked for. Where a constraint holds the answer, the draft is
    the likeliest of its language; guided: whether the tokens that stay were drawn from it too; log_mass: the log of the
    probability that the model gives to the canvas being of that language. choices: of the last step of a choice's
    canvas, how probable each text is.
    """

    canvas: int
    step: int
    number: int
    temperature: float
    draft: Tensor
    renoised: Tensor
    accepted: Tensor
    entropy: Tensor
    finished: bool
    top: TopTokens | None = None
    guided: bool = False
    log_mass: float | None = None
    choices: Mapping[str, float] | None = None


@dataclass(frozen=True)
class ConstraintReport:
    """What a constraint had to do to an answer.

    log_mass: of each canvas, the log of the probability that the model gave in its last step to the canvas being of the
    language, in nats: 0 where it would have kept to it anyway, and below about -20 where it was overruled; empty for an
    answer that was written causally. guided_steps: of all denoising steps, those whose tokens were drawn from the
    language. states: of the automaton. choices: of an answer that is one of some texts, how probable each of them was
    in its last step, at temperature 1; None where that is not known.
    """

    log_mass: tuple[float, ...]
    guided_steps: int
    states: int
    choices: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Verification:
    """How an answer came about whose drafts were verified.

    rounds: causal passes that wrote tokens, and of these drafted_rounds verified a draft; the others wrote one token.
    denoiser_passes: those that made the drafts. kept_per_round: tokens, the EOS included, that a round added.
    """

    rounds: int
    drafted_rounds: int
    denoiser_passes: int
    kept_per_round: float


@dataclass(frozen=True)
class Generation:
    """A finished answer.

    token_ids: the answer without the EOS that ended it, cut at max_new_tokens. canvases: what was written, whole.
    tokens_per_forward: answer tokens, the EOS included, per denoiser pass; of an answer that was written causally, per
    forward. constraint: what a constraint had to do; verification: how its drafts were verified; None where there were
    none. entropies: in nats, of each of the answer's tokens and of the EOS when it became final, in its canvas's last
    step or in the causal reading. log_probs: of the same tokens as the causal reading has them, where the answer was
    scored; None for the first of each canvas. Seconds are wall clock. parts: the prompts that it was made from the
    answers to, each with canvases of its own; 1 for the prompt itself. items: of an array that was made so, the part
    that each of its objects is from. unread: parts whose answers are no JSON object.
    """

    token_ids: tuple[int, ...]
    finish_reason: str
    seed: int
    steps_per_canvas: tuple[int, ...]
    tokens_per_forward: float
    prefill_seconds: float
    denoising_seconds: float
    commit_seconds: float
    canvases: tuple[tuple[int, ...], ...] = field(repr=False)
    constraint: ConstraintReport | None = None
    verification: Verification | None = None
    entropies: tuple[float, ...] = field(default=(), repr=False)
    log_probs: tuple[float | None, ...] = field(default=(), repr=False)
    parts: int = 1
    items: tuple[int, ...] = field(default=(), repr=False)
    unread: int = 0

    @property
    def seconds(self) -> float:
        return self.prefill_seconds + self.denoising_seconds + self.commit_seconds

    @property
    def tokens_per_second(self) -> float:
        return len(self.token_ids) / self.seconds if self.seconds else 0.0


class AnswerRecord:
    """An answer under way: its tokens so far, its canvases, where its time went, and where it ends.

    room: how many tokens it may have at most; stop_ids: tokens that end it, of vocab_size; max_context: tokens of
    prompt and canvases; constraint: the language that it is of. start: what its first canvas begins as, if not as
    noise. is_scored: whether the causal pass is to read it.
    """

    def __init__(
        self,
        *,
        room: int,
        stop_ids: Sequence[int],
        seed: int,
        max_context: int,
        vocab_size: int,
        constraint: TokenAutomaton | None = None,
        start: CanvasStart | None = None,
        is_scored: bool = False,
    ) -> None:
        self.room, self.stop_ids, self.seed, self.max_context = room, stop_ids, seed, max_context
        self.constraint = constraint_with_pins(constraint, start, vocab_size=vocab_size, stop_ids=stop_ids)
        self._start, self._vocab_size, self._is_constrained = start, vocab_size, constraint is not None
        self.finish_reason: str | None = None
        self.entropies: list[float] = []
        self._log_probs: list[float | None] = []
        self._is_scored = is_scored
        self._canvas_entropies: list[float] = []
        self.token_ids: list[int] = []
        self.canvases: list[tuple[int, ...]] = []
        self.steps_per_canvas: list[int] = []
        self._state = 0 if self.constraint is None else self.constraint.start
        self._log_mass: list[float] = []
        self._guided_steps = 0
        self._choices: Mapping[str, float] | None = None
        self._has_end = False
        self._seconds = {"prefill": 0.0, "denoising": 0.0, "commit": 0.0}
        self.restart()

    def restart(self) -> None:
        """Starts the clock anew: what went by since the last lap was somebody else's time."""
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        """Adds the wall clock since the last lap to a phase: prefill, denoising or commit."""
        now = time.perf_counter()
        self._seconds[phase] += now - self._last
        self._last = now

    def check(self, prompt_length: int, canvas_length: int) -> None:
        """Raises ValueError unless there is room for an answer that meets the constraint, with what is pinned."""
        if self._start is not None:
            self._start.check(canvas_length, self._vocab_size, self.room)
        if self.constraint is not None:
            check_constraint(
                self.constraint,
                vocab_size=self._vocab_size,
                stop_ids=self.stop_ids,
                prompt_length=prompt_length,
                canvas_length=canvas_length,
                max_new_tokens=self.room,
                max_context=self.max_context,
            )
        if self._start is not None and (held := self.constrained_canvas(canvas_length, committed=prompt_length)):
            check_pins(self._start, held, canvas_length)

    @property
    def canvas_start(self) -> CanvasStart | None:
        """What the next canvas begins as; None for noise."""
        return None if self.canvases else self._start

    def constrained_canvas(self, length: int, *, committed: int) -> ConstrainedCanvas | None:
        """Returns the constraint as the next canvas has it, which follows `committed` tokens; None without one."""
        if self.constraint is None:
            return None
        return ConstrainedCanvas.starting(
            self.constraint,
            self._state,
            length,
            self.stop_ids,
            room=self.room - len(self.token_ids),
            further=(self.max_context - committed) // length - 1,
        )

    def take(self, step: DenoisingStep) -> None:
        """Takes note of a denoising step, which has just ended."""
        self.lap("denoising")
        self._guided_steps += step.guided
        if step.finished:
            self._canvas_entropies = step.entropy.tolist()
            self._choices = step.choices
            if step.log_mass is not None:
                self._log_mass.append(step.log_mass)

    def add(self, canvas: Sequence[int], steps: int, *, committed: int) -> tuple[list[int], str | None]:
        """Takes a finished canvas that took so many steps and follows `committed` tokens.

        Returns what it adds to the answer and why that ends there: as `cut_canvas` does, or since no further canvas
        fits into the context, or since nothing may follow under the constraint.
        """
        part, finish_reason = cut_canvas(canvas, self.stop_ids, self.room - len(self.token_ids))
        self._has_end = finish_reason == "stop"
        written = len(part) + self._has_end
        self.entropies += self._canvas_entropies[:written]
        if self._is_scored and written:
            self._log_probs.append(None)
        self.token_ids += part
        self.canvases.append(tuple(canvas))
        self.steps_per_canvas.append(steps)
        if finish_reason is None and committed + 2 * len(canvas) > self.max_context:
            finish_reason = "length"
        if self.constraint is not None and finish_reason != "stop":
            # A canvas without the end leaves room for the rest, so an answer without room is whole.
            state = self.constraint.state_after(part, self._state)
            assert state is not None
            self._state = state
            # What is held only not to end before its pins might have gone on.
            if (finish_reason == "length" and self._is_constrained) or self.constraint.is_complete(state):
                assert self.constraint.distance[state] == 1
                finish_reason = "stop"
        self.finish_reason = finish_reason
        return part, finish_reason

    @property
    def unscored(self) -> list[int]:
        """The tokens of the last canvas that the causal pass has to read to score those behind each; often none."""
        start = sum(map(len, self.canvases[:-1]))
        return list(self.canvases[-1][: max(0, len(self.entropies) - start - 1)]) if self._is_scored else []

    def score(self, log_probs: Sequence[float]) -> None:
        """Takes the log-probabilities of the next tokens. Raises ValueError for one that is not finite."""
        if not all(map(math.isfinite, log_probs)):
            raise not_finite(f"where canvas {len(self.canvases) - 1} is read causally")
        self._log_probs += log_probs

    def generation(self, finish_reason: str) -> Generation:
        written = len(self.token_ids) + self._has_end
        report = None
        if self.constraint is not None:
            states = self.constraint.num_states
            report = ConstraintReport(tuple(self._log_mass), self._guided_steps, states, self._choices)
        return Generation(
            token_ids=tuple(self.token_ids),
            finish_reason=finish_reason,
            seed=self.seed,
            steps_per_canvas=tuple(self.steps_per_canvas),
            tokens_per_forward=written / sum(self.steps_per_canvas),
            prefill_seconds=self._seconds["prefill"],
            denoising_seconds=self._seconds["denoising"],
            commit_seconds=self._seconds["commit"],
            canvases=tuple(self.canvases),
            constraint=report,
            entropies=tuple(self.entropies[:written]),
            log_probs=tuple(self._log_probs),
        )


def check_prompt(prompt: Sequence[int], canvas_length: int, vocab_size: int, max_context: int) -> None:
    """Raises ValueError unless `prompt` has tokens, all of the vocabulary, and leaves room for a canvas.

    canvas_length: 1 where an answer is written token by token, 0 where none is written.
    """
    if not prompt:
        raise ValueError("the prompt is empty; it needs at least one token")
    # The two ends first: a server checks long prompts many times.
    if (min(prompt) < 0 or max(prompt) >= vocab_size) and (
        bad := [token for token in prompt if not 0 <= token < vocab_size][:3]
    ):
        raise ValueError(f"token ids {bad} of the prompt lie outside the vocabulary of {vocab_size}")
    if len(prompt) + canvas_length > max_context:
        has, either = (f" and a canvas {canvas_length}", " or the canvas") if canvas_length > 1 else ("", "")
        raise ValueError(
            f"the prompt has {len(prompt)} tokens{has}; the context holds {max_context}: shorten the prompt{either}"
        )


def not_finite(where: str) -> ValueError:
    """Returns the error for logits that hold NaN or infinity, `where` they were found."""
    return ValueError(
        f"the model's logits are not finite {where}: the weights or the precision they run in are broken; try float32"
    )


def to_its_end(steps: Callable[Arguments, Generator[object, None, Generation]]) -> Callable[Arguments, Generation]:
    """Returns what takes the arguments of `steps`, runs its generator to the end, and returns the answer."""

    @functools.wraps(steps)
    def run(*args: Arguments.args, **named: Arguments.kwargs) -> Generation:
        found = steps(*args, **named)
        while True:
            try:
                next(found)
            except StopIteration as end:
                result: Generation = end.value
                return result

    return run
