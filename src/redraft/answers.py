"""An answer as the façade tells it: drafts, text that is final, and the result with its parsed value."""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from redraft import engine
from redraft.constraints.tokens import TokenAutomaton
from redraft.diffusion.settings import SamplerArguments, SamplerSettings
from redraft.diffusion.start import CanvasStart
from redraft.generation.modes import Mode, is_greedy
from redraft.generation.result import DenoisingStep, Generation
from redraft.text import AnswerStream, Content, Delta, End, ReadPrompt, TextTokenizer
from redraft.text.checks import brief
from redraft.text.prompts.grounding import SourceText, Span, ground_answer
from redraft.text.trust.calibration import Calibration
from redraft.text.trust.evidence import Trust, Writing, assess


class HoldingArguments(TypedDict, total=False):
    """The keyword arguments that say what an answer is held to; docstring of `AnswerArguments`."""

    schema: Any
    regex: str | None
    choice: Sequence[str] | None
    grammar: str | None
    constraint: TokenAutomaton | None
    schema_from_prompt: bool
    grounded: bool
    at_words: bool


def pop_holding(arguments: dict[str, Any]) -> Any:
    """Takes what an answer is held to out of its arguments, and returns it."""
    return {name: arguments.pop(name) for name in HoldingArguments.__annotations__ if name in arguments}


class AnswerArguments(SamplerArguments, HoldingArguments, total=False):
    """The keyword arguments of an answer: sampler settings, a mode, an adapter, what it is held to, a start.

    mode: "diffusion" denoises canvases, "autoregressive" writes token by token with the causal pass of the same
    weights, "verified" writes the same tokens as that, drafted on canvases, and "auto" the same again, drafted while
    that is faster. The latter three take the likeliest token unless a temperature is given, which is that of
    softmax(logits / temperature). None is as the model's card says, else "diffusion", which is also taken for a start
    and for settings that only canvases have.

    adapter: the name of one that is loaded, None for the model itself. schema, regex, choice, grammar, of which one may
    be given: as `Model.constraint` takes them; constraint: what that has built. start: what the first canvas begins as,
    of which tokens may be pinned. is_scored: whether the causal pass reads the answer once it is written, which its
    trust mark gains from; by default where the checkpoint is calibrated, which needs it. schema_from_prompt: hold the
    answer to the fields that the prompt asks for. grounded: hold each text of the answer to the prompt's own, whose
    places are then in the result; at_words: to whole words of it.
    """

    mode: Mode | None
    adapter: str | None
    start: CanvasStart | None
    is_scored: bool | None


@dataclass(frozen=True)
class Draft:
    """A denoising step, and the text that its canvas would add if it stopped here."""

    step: DenoisingStep
    text: str


@dataclass(frozen=True)
class Committed:
    """The next part of the answer that is final. Its text may be empty if a canvas ends inside a character."""

    text: str


@dataclass(frozen=True)
class Result:
    """A finished answer: its text, how it was generated, and what may be wrong with it or with its prompt.

    parsed: of an answer that was held to a schema, its value, or an object of the pydantic class; None of others.
    trust: what is known about it beside.
    spans: of a grounded answer, where each of its texts stands in the prompt, in characters from the first to behind
    the last; None of others.
    """

    text: str
    generation: Generation
    model: str
    warnings: tuple[str, ...] = ()
    parsed: Any = None
    trust: Trust = dataclasses.field(default_factory=Trust)
    spans: Mapping[str, Span] | None = None

    def __str__(self) -> str:
        return self.text

    @property
    def token_ids(self) -> tuple[int, ...]:
        return self.generation.token_ids

    @property
    def finish_reason(self) -> str:
        """Why the answer ended: "stop" for an EOS, "length" for max_new_tokens or the context."""
        return self.generation.finish_reason

    @property
    def tokens_per_forward(self) -> float:
        return self.generation.tokens_per_forward

    @property
    def choices(self) -> Mapping[str, float] | None:
        """How probable each text of a choice was, in the last step; None for other answers, and for causal ones."""
        return None if self.generation.constraint is None else self.generation.constraint.choices

    @property
    def seed(self) -> int:
        return self.generation.seed

    def to_json(self) -> dict[str, Any]:
        """Returns what `redraft generate --json` prints; seconds are wall clock, the prefill included."""
        generation = self.generation
        reports = {"verification": generation.verification, "constraint": generation.constraint}
        return {
            "text": self.text,
            "token_ids": list(generation.token_ids),
            "finish_reason": generation.finish_reason,
            "steps_per_canvas": list(generation.steps_per_canvas),
            "tokens_per_forward": round(generation.tokens_per_forward, 3),
            "seconds": round(generation.seconds, 4),
            "tokens_per_second": round(generation.tokens_per_second, 1),
            "seed": generation.seed,
            **({} if generation.parts == 1 else {"parts": generation.parts}),
            "model": self.model,
            "warnings": list(self.warnings),
            "trust": self.trust.to_json(),
            **({} if self.spans is None else {"spans": self.spans}),
            **{name: _known(report) for name, report in reports.items() if report is not None},
        }


def _known(report: Any) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(report).items() if value is not None}


class AnswerText:
    """The façade's events of one answer, from its denoising steps and finished canvases.

    name, tokenizer, calibration: the model's. stop_ids: tokens that end the answer. mode: as a Request has it. schema:
    what it was held to, if its value is wanted; is_held: whether it was held to anything. source: the text that its
    values are from.
    """

    def __init__(
        self,
        name: str,
        tokenizer: TextTokenizer,
        prompt: ReadPrompt,
        settings: SamplerSettings,
        *,
        stop_ids: Sequence[int],
        mode: str = "diffusion",
        schema: Any = None,
        is_held: bool = False,
        calibration: Calibration | None = None,
        source: SourceText | None = None,
    ) -> None:
        self._name, self._tokenizer, self._prompt, self._settings = name, tokenizer, prompt, settings
        self._mode, self._schema, self._is_held, self._calibration = mode, schema, is_held, calibration
        self._source = source
        self._stream = AnswerStream(
            tokenizer,
            stop_ids=stop_ids,
            max_tokens=prompt.room(settings.max_new_tokens),
            forms=prompt.answer_forms(is_held=is_held),
        )
        self._text = ""

    def draft(self, step: DenoisingStep) -> Draft:
        return Draft(step, self._stream.draft(step.draft.tolist()))

    def commit(self, token_ids: Sequence[int]) -> Committed:
        """The text that a finished canvas makes certain."""
        return self._committed(self._stream.commit(token_ids))

    def finish(self, generation: Generation) -> Iterator[Committed | Result]:
        """The rest of the text, where there is any, and the result."""
        if (rest := self._committed(self._stream.finish(generation.finish_reason))).text:
            yield rest
        writing = writing_of(self._mode, generation, self._settings)
        found = self._prompt.check(
            self._text,
            generation.finish_reason,
            num_tokens=len(generation.token_ids),
            steps_per_canvas=writing.steps_per_canvas,
            max_steps=self._settings.steps,
            is_greedy=is_greedy(self._mode, self._settings.temperature),
            is_held=self._is_held,
            unread=generation.unread,
        )
        text, spans = self._text, None
        if self._source is not None:
            text, spans = ground_answer(text, self._source, self._prompt.stretches(generation.items))
        parsed, refusal = (None, ()) if self._schema is None else parse(self._schema, text)
        trust = assess(
            self._prompt, text, writing, self._tokenizer, calibration=self._calibration, is_held=self._is_held
        )
        yield Result(text, generation, self._name, (*self._prompt.warnings, *found, *refusal), parsed, trust, spans)

    def result_of(self, generation: Generation) -> Result:
        """The result of an answer that is there at once."""
        self.commit(generation.token_ids)
        *_, result = self.finish(generation)
        assert isinstance(result, Result)
        return result

    def _committed(self, told: Iterable[Delta | End]) -> Committed:
        parts = [event.part for event in told if isinstance(event, Delta)]
        text = "".join(part.text for part in parts if isinstance(part, Content))
        self._text += text
        return Committed(text)


def check_held(constraint: object, start: object) -> None:
    """Raises ValueError unless an answer can be held to the one, and begin as the other; None is neither."""
    if constraint is not None and not isinstance(constraint, TokenAutomaton):
        raise ValueError(f"the constraint is {constraint!r:.80}, must be one that Model.constraint has built")
    if start is not None and not isinstance(start, CanvasStart):
        raise ValueError(f"start is {start!r:.80}, must be a redraft.CanvasStart")


def writing_of(mode: str, generation: Generation, settings: SamplerSettings) -> Writing:
    """Returns what trust marks are made of, from an answer of that mode."""
    return Writing(
        mode=mode,
        finish_reason=generation.finish_reason,
        token_ids=generation.token_ids,
        entropies=generation.entropies,
        log_probs=generation.log_probs,
        steps_per_canvas=generation.steps_per_canvas if mode == "diffusion" else (),
        max_steps=settings.steps,
        items=generation.items,
    )


@dataclass(frozen=True)
class Failure:
    """The error of a prompt that could not be answered, in the place of its Result."""

    error: Exception


class CancelledAnswer(Exception):
    """Raised to those who wait for an answer that was cancelled, by its caller or because the engine was shut down."""


class AnswerReader(AnswerText):
    """The façade's events of one request, from the engine's."""

    def read(self, event: engine.Event) -> Iterator[Draft | Committed | Result]:
        """Yields what an event means. Raises the error of a failed request, CancelledAnswer for a cancelled one."""
        if isinstance(event, engine.Failed):
            raise event.error
        if isinstance(event, engine.Cancelled):
            raise CancelledAnswer(f"answer {event.id} was cancelled")
        if isinstance(event, engine.StepTaken):
            yield self.draft(event.step)
        elif isinstance(event, engine.CanvasCommitted):
            yield self.commit(event.token_ids)
        elif isinstance(event, engine.Finished):
            yield from self.finish(event.generation)

    def read_end(self, event: engine.Event) -> Result | Failure | None:
        """Returns the Result or Failure that an event is, or None if it is not the last."""
        try:
            read = list(self.read(event))
        except Exception as error:
            return Failure(error)
        return read[-1] if read and isinstance(read[-1], Result) else None


def json_schema_of(schema: Any) -> Mapping[str, Any] | bool:
    """Returns the JSON Schema of what a value is to be: of a schema itself, or of a type that pydantic knows.

    ValueError for anything else.
    """
    if isinstance(schema, Mapping | bool):
        return schema
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticUserError

    try:
        # A text would be taken for the name of a type somewhere.
        if not isinstance(schema, str):
            return TypeAdapter(schema).json_schema()
    except (PydanticUserError, TypeError, ValueError) as error:
        reason = f": {str(error).splitlines()[0]}"
    else:
        reason = ""
    raise ValueError(f"the schema is {brief(schema)}, must be a dict or a type that pydantic knows{reason}")


def parse(schema: Any, answer: str) -> tuple[Any, tuple[str, ...]]:
    """Returns the value of an answer that fits a schema, as `json_schema_of` takes it.

    A type may refuse more than its schema says, by a validator of its own: the value is None then, and a warning says
    why.
    """
    try:
        if isinstance(schema, Mapping | bool):
            return json.loads(answer), ()
        from pydantic import TypeAdapter

        return TypeAdapter(schema).validate_json(answer), ()
    except ValueError as error:
        return None, (f"the answer fits the schema but cannot be parsed: {' '.join(str(error).split())}",)
