"""Typed questions about a text, decided by the probabilities of their labels: nothing is generated.

A question's labels stand in its prompt, each canvas gives each of them a probability (`generation/decisions.py`), and
the mean over orders of the labels and draws of the noise is the answer's.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import numpy as np

from redraft.constraints.labels import LabelSet
from redraft.diffusion.start import CanvasStart
from redraft.generation.decisions import label_log_masses
from redraft.utils.words import counted

if TYPE_CHECKING:
    from redraft.api import Model

MAX_LABELS = 255
MAX_LEVELS = 10
MAX_PASSES = 4
MAX_AVERAGED = 64
"""The most orders, and the most draws, that are averaged."""
MAX_ROWS = 2048
"""Rows of canvases in one forward."""
LOW_LOG_MASS = -10.0
"""Below it the model would write one of the labels less than once in 20,000 answers."""


class DecisionArguments(TypedDict, total=False):
    """The keyword arguments of a decision; `Model.decide` explains them."""

    passes: int
    orders: int
    draws: int
    temperature: float
    seed: int
    canvas_length: int


@dataclass(frozen=True, kw_only=True)
class TypedQuestion:
    """What is asked about a text. Made by `choice`, `yes_no` and `score`.

    labels: the texts that the answer may be, and descriptions: what each stands for, by label. prompt: what the model
    reads instead of the question, with {text} where the text belongs; before, after: what stands around the label in
    the answer. Raises ValueError for labels that are too few, too many or not different.
    """

    kind: Literal["choice", "yes_no", "score"]
    instructions: str
    labels: tuple[str, ...]
    descriptions: Mapping[str, str]
    prompt: str | None = None
    before: str = ""
    after: str = ""

    def __post_init__(self) -> None:
        most, noun = (MAX_LEVELS, "level") if self.kind == "score" else (MAX_LABELS, "label")
        if not all(isinstance(one, str) for one in (*self.labels, *self.descriptions.values())):
            given = list(self.descriptions.values() or self.labels)
            raise ValueError(f"one of the {noun}s is not a text: {given!r:.80}")
        if not 2 <= len(self.labels) <= most:
            raise ValueError(f"the question has {counted(len(self.labels), noun)}, must have 2 to {most}")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("two labels are the same text: give each once")
        if self.prompt is not None and "{text}" not in self.prompt:
            raise ValueError(f"the prompt {self.prompt[:60]!r} has no {{text}}: mark where the text belongs")

    @classmethod
    def choice(
        cls, instructions: str, labels: Sequence[str] | Mapping[str, str | None], **others: str
    ) -> "TypedQuestion":
        """Asks which of some labels holds; a mapping says what each stands for. others: prompt, before, after."""
        _check_list("labels", labels)
        described = labels if isinstance(labels, Mapping) else {}
        known = {label: text for label, text in described.items() if text}
        return cls(kind="choice", instructions=instructions, labels=tuple(labels), descriptions=known, **others)

    @classmethod
    def yes_no(cls, instructions: str, yes: str = "yes", no: str = "no", **others: str) -> "TypedQuestion":
        """Asks whether something holds. yes, no: the texts of the two answers."""
        return cls(kind="yes_no", instructions=instructions, labels=(yes, no), descriptions={}, **others)

    @classmethod
    def score(cls, instructions: str, levels: Sequence[str], **others: str) -> "TypedQuestion":
        """Asks for one of 2 to 10 levels, the lowest first. Their labels are their numbers, from 0."""
        _check_list("levels", levels)
        numbered = {str(level): text for level, text in enumerate(levels)}
        return cls(kind="score", instructions=instructions, labels=tuple(numbered), descriptions=numbered, **others)

    def text_for(self, text: str, order: Sequence[str]) -> str:
        """Returns the prompt that asks it about a text, with the labels in an order."""
        if self.prompt is not None:
            return self.prompt.replace("{text}", text)
        lines = [f"{label}: {self.descriptions[label]}" for label in order if label in self.descriptions]
        return "\n".join([text, "", self.instructions, *lines, f"Answer with one of: {', '.join(order)}"])

    def order(self, number: int, count: int) -> tuple[str, ...]:
        """Returns the labels as the order of that number has them, of `count`: each begins with another one."""
        first = number * len(self.labels) // count
        return self.labels[first:] + self.labels[:first]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What was decided. label: the most probable one. entropy: of the probabilities, in nats.

    score: of a score the mean level. log_mass: the log of the probability that the model gave to the labels together,
    on average; far below 0 it would have answered something else. warnings: why the probabilities may say little.
    """

    label: str
    probabilities: dict[str, float]
    entropy: float
    log_mass: float
    score: float | None = None
    warnings: tuple[str, ...] = ()

    @property
    def confidence(self) -> float:
        """1 where one label is certain, 0 where all are as probable."""
        return 1 - self.entropy / math.log(len(self.probabilities))


def decide(
    model: "Model",
    text: str,
    questions: Mapping[str, TypedQuestion],
    *,
    passes: int = 1,
    orders: int = 1,
    draws: int = 1,
    temperature: float = 1.0,
    **settings: Any,
) -> dict[str, Decision]:
    """Does what `Model.decide` says."""
    for name, value, most in (
        ("passes", passes, MAX_PASSES),
        ("orders", orders, MAX_AVERAGED),
        ("draws", draws, MAX_AVERAGED),
    ):
        if type(value) is not int or not 1 <= value <= most:
            raise ValueError(f"{name} is {value!r}, must be a whole number from 1 to {most}")
    if not isinstance(temperature, int | float) or not 0 < temperature < math.inf:
        raise ValueError(f"temperature is {temperature!r}, must be a number above 0")
    if not isinstance(text, str):
        raise ValueError(f"the text is {text!r:.80}, must be a text")
    if not text.strip():
        raise ValueError("the text is empty; give one to decide about")
    if not isinstance(questions, Mapping) or not all(isinstance(one, TypedQuestion) for one in questions.values()):
        raise ValueError(f"the questions are {questions!r:.80}, must be a dict of TypedQuestions by name")
    if not questions:
        raise ValueError("there is no question: give at least one")
    chosen = model.defaults.replace(**settings)
    length = chosen.canvas_length or model.transformer.config.canvas_length
    asked = [(name, one, number) for name, one in questions.items() for number in range(orders)]
    labels = {
        name: LabelSet.of([f"{q.before}{label}{q.after}" for label in q.labels], model.vocabulary)
        for name, q in questions.items()
    }
    found: dict[str, list[np.ndarray]] = {name: [] for name in questions}
    warnings: dict[str, tuple[str, ...]] = {}
    at_once = max(1, MAX_ROWS // (length * draws))
    for begin in range(0, len(asked), at_once):
        part = asked[begin : begin + at_once]
        prompts = [model.read(q.text_for(text, q.order(number, orders))) for _, q, number in part]
        masses = label_log_masses(
            model.transformer,
            [prompt.ids for prompt in prompts],
            [labels[name] for name, _, _ in part],
            chosen,
            passes=passes,
            draws=draws,
            starts=[_start(model, q.before) for _, q, _ in part],
            temperature=temperature,
            adapter=model.adapter,
        )
        for (name, _, _), prompt, one in zip(part, prompts, masses, strict=True):
            found[name].append(one)
            warnings.setdefault(name, prompt.warnings)
    return {
        name: _decision(question, np.concatenate(found[name]), length, warnings[name])
        for name, question in questions.items()
    }


def warnings_of(decisions: Mapping[str, Decision]) -> list[str]:
    """Returns the warnings of all decisions, each once, with the names of its questions where there are several."""
    named: dict[str, list[str]] = {}
    for name, one in decisions.items():
        for warning in one.warnings:
            named.setdefault(warning, []).append(name)
    if len(decisions) == 1:
        return list(named)
    return [f"{', '.join(names)}: {warning}" for warning, names in named.items()]


def _start(model: "Model", before: str) -> CanvasStart | None:
    """Returns the start that holds what stands before a label, but for its last token, which may go on into it."""
    tokens = model.tokenizer.encode(before)[:-1] if before else []
    while not before.encode().startswith(model.vocabulary.text_of(tokens)):
        del tokens[-1]
    return CanvasStart.holding(tokens) if tokens else None


def _decision(question: TypedQuestion, log_masses: np.ndarray, length: int, warnings: tuple[str, ...]) -> Decision:
    """Returns the mean of what some canvases say: log_masses [canvases, L]."""
    together = np.logaddexp.reduce(log_masses, axis=1)
    if not np.isfinite(together).all():
        raise ValueError(f"no label fits into a canvas of {length} tokens: shorten the labels, or raise canvas_length")
    probabilities = np.exp(log_masses - together[:, None]).mean(axis=0)
    log_mass = float(together.mean())
    if log_mass < LOW_LOG_MASS:
        warnings = (
            *warnings,
            f"the model would hardly write any of these labels here (log mass {log_mass:.1f}): the probabilities say "
            "little; more passes, or labels in the form that it answers in, may help",
        )
    entropy = float(-(probabilities * np.log(np.where(probabilities > 0, probabilities, 1.0))).sum())
    return Decision(
        label=question.labels[int(probabilities.argmax())],
        probabilities=dict(zip(question.labels, probabilities.tolist(), strict=True)),
        entropy=entropy,
        log_mass=log_mass,
        score=float(probabilities @ np.arange(len(probabilities))) if question.kind == "score" else None,
        warnings=warnings,
    )


def _check_list(name: str, given: object) -> None:
    """Raises ValueError for one text, which Python takes for a list of its characters."""
    if isinstance(given, str) or not isinstance(given, Sequence | Mapping):
        raise ValueError(f"{name} are {given!r:.80}, must be a list of at least two texts")


def question_of(name: str, given: Any) -> TypedQuestion:
    """Returns a question from JSON: type, instructions, and criteria, labels by description or a list of them.

    The types are choice, yes_no (or noul) and score. prompt, before, after: as a TypedQuestion has them. Raises
    ValueError, naming the question, for what is unknown or missing.
    """
    if not isinstance(given, Mapping):
        raise ValueError(f"question {name!r} must be an object")
    others = {key: given[key] for key in ("prompt", "before", "after") if given.get(key) is not None}
    kind, criteria, instructions = given.get("type"), given.get("criteria"), given.get("instructions") or ""
    if unknown := given.keys() - {"type", "criteria", "instructions", "prompt", "before", "after"}:
        raise ValueError(f"question {name!r} has the unknown field {sorted(unknown)[0]!r}")
    if not isinstance(instructions, str) or not all(isinstance(one, str) for one in others.values()):
        raise ValueError(f"question {name!r}: instructions, prompt, before and after must be texts")
    _check_criteria(name, kind, criteria)
    try:
        match kind, criteria:
            case (("yes_no" | "noul"), _):
                described = criteria or {}
                lines = [
                    f"{word}: {described[key]}"
                    for key, word in (("true", "yes"), ("false", "no"))
                    if described.get(key)
                ]
                return TypedQuestion.yes_no("\n".join([instructions, *lines]), **others)
            case "choice", Mapping() | list():
                return TypedQuestion.choice(instructions, criteria, **others)
            case "score", list():
                return TypedQuestion.score(instructions, criteria, **others)
    except (ValueError, TypeError) as error:
        raise ValueError(f"question {name!r}: {error}") from None
    raise ValueError(
        f"question {name!r} has the type {kind!r}, must be yes_no, choice (with criteria, labels or what they stand "
        "for) or score (with criteria, a list of levels)"
    )


def _check_criteria(name: str, kind: Any, criteria: Any) -> None:
    """Raises ValueError, naming the question, for criteria that are no texts, and for those that its type has not."""
    is_described = isinstance(criteria, Mapping)
    if kind in ("yes_no", "noul") and not (criteria is None or (is_described and criteria.keys() <= {"true", "false"})):
        raise ValueError(f'question {name!r}: criteria of {kind} must say what "true" and "false" stand for')
    texts = criteria.values() if is_described else criteria if isinstance(criteria, list) else ()
    if not all(isinstance(one, str) or (is_described and one is None) for one in texts):
        raise ValueError(f"question {name!r}: labels, levels and what they stand for must be texts")
