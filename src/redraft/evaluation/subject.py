"""The subject of an evaluation: a model that is loaded here, or an endpoint of a server."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, cast

from redraft.api import Model, Prompt
from redraft.client.errors import RequestFailed
from redraft.evaluation.constrained import constraint_of
from redraft.generation.modes import Mode, chosen_mode
from redraft.generation.result import ConstraintReport, Generation
from redraft.text.prompts.conversation import text_of

if TYPE_CHECKING:
    from redraft.client.stream import Endpoint, WholeAnswer

CHARACTERS_PER_TOKEN = 4
"""Of English text, roughly: for prompts of a given number of tokens where only the server can count them."""


@dataclass(frozen=True, kw_only=True)
class Response:
    """An answer and what is known of how it was generated; a server may say nothing beyond text, seconds and tokens.

    tokens: how many; token_ids: which, None where they are not known, and with them the canvas length.
    """

    text: str
    seconds: float
    tokens: int | None
    token_ids: tuple[int, ...] | None = None
    canvas_length: int | None = None
    steps_per_canvas: tuple[int, ...] = ()
    tokens_per_forward: float | None = None
    constraint: ConstraintReport | None = None

    @classmethod
    def of_generation(cls, text: str, generation: Generation) -> "Response":
        """Returns the response that was generated in this process."""
        return cls(
            text=text,
            seconds=generation.seconds,
            tokens=len(generation.token_ids),
            token_ids=generation.token_ids,
            canvas_length=len(generation.canvases[0]),
            steps_per_canvas=generation.steps_per_canvas,
            tokens_per_forward=generation.tokens_per_forward,
            constraint=generation.constraint,
        )


class Subject(Protocol):
    """What is evaluated."""

    @property
    def facts(self) -> dict[str, Any]:
        """What a report says of it: its name and its settings."""
        ...

    def check(self, prompt: Prompt) -> None:
        """Raises ValueError for a prompt that cannot be answered, without answering it."""
        ...

    def respond(self, prompt: Prompt) -> Response:
        """Answers a prompt. Raises ValueError where that fails."""
        ...

    def encode(self, text: str) -> Sequence[int] | None:
        """Returns a text's token ids; None where only a server knows them."""
        ...

    def count_tokens(self, text: str) -> int:
        """Counts a text's tokens, where only a server knows them by a rule of thumb."""
        ...


class ModelSubject:
    """A model in this process, with sampler settings that are the same for every prompt.

    mode: how it answers, as `Model.generate` has it. is_constrained: each answer is held to what its prompt asks for;
    is_grounded: and its values to the prompt's text.
    """

    def __init__(
        self,
        model: Model,
        settings: Mapping[str, Any],
        *,
        mode: Mode | None = None,
        is_constrained: bool = False,
        is_grounded: bool = False,
    ) -> None:
        self._model, self._settings = model, dict(settings)
        self._mode = mode = chosen_mode(mode, model.usual_mode, settings, has_start=False)
        self._is_constrained, self._is_grounded = is_constrained or is_grounded, is_grounded
        named: dict[str, Any] = {"mode": mode}
        named |= {"constrained": True} if self._is_constrained else {}
        named |= {"grounded": True} if is_grounded else {}
        self.facts = {"model": model.name, "settings": named | self._settings}

    def check(self, prompt: Prompt) -> None:
        self._model.stream(prompt, mode=self._mode, **self._constraint(prompt), **self._settings)

    def respond(self, prompt: Prompt) -> Response:
        result = self._model.generate(prompt, mode=self._mode, **self._constraint(prompt), **self._settings)
        return Response.of_generation(result.text, result.generation)

    def _constraint(self, prompt: Prompt) -> dict[str, Any]:
        if not self._is_constrained:
            return {}
        text = prompt if isinstance(prompt, str) else text_of(prompt[-1])
        held = constraint_of(self._model.card.task_of(text), text)
        return held | {"grounded": True} if self._is_grounded else held

    def encode(self, text: str) -> Sequence[int]:
        return self._model.tokenizer.encode(text)

    def count_tokens(self, text: str) -> int:
        return len(self.encode(text))


class EndpointSubject:
    """A model behind a server that speaks the OpenAI protocol.

    mode: how it is to answer: asked for, and an answer in another is an error. None is as the server answers the first.
    """

    def __init__(self, endpoint: "Endpoint", mode: Mode | None = None) -> None:
        if mode is not None:
            canvas = {**endpoint.fields.get("canvas", {}), "mode": mode}
            endpoint = replace(endpoint, fields={**endpoint.fields, "canvas": canvas})
        self._endpoint, self._mode = endpoint, mode
        self.facts = {"endpoint": endpoint.url, "model": endpoint.model, "settings": dict(endpoint.fields)}

    def check(self, prompt: Prompt) -> None:
        """Does nothing: the server refuses a prompt when it is asked."""

    def respond(self, prompt: Prompt) -> Response:
        """Answers a prompt. Raises ValueError where the server does not answer: a mean over the rest would mislead."""

        async def complete() -> "WholeAnswer":
            async with self._endpoint.connect() as connection:
                return await connection.complete(prompt)

        start = time.perf_counter()
        try:
            answer = asyncio.run(complete())
        except RequestFailed as error:
            raise ValueError(f"{self._endpoint.url} did not answer ({error.kind}): {error}") from error
        seconds, told = time.perf_counter() - start, asdict(answer)
        self._check_mode(told.pop("mode"))
        return Response(seconds=seconds, **told)

    def _check_mode(self, told: str | None) -> None:
        """Raises ValueError where a server says of an answer that it was written in another mode, or should say it."""
        if self._mode is None:
            self._mode = cast(Mode | None, told)
            self.facts |= {"mode": told} if told is not None else {}
        if told is None and self._mode is not None:
            raise ValueError(
                f"{self._endpoint.url} does not say that it answered in mode {self._mode!r}, so it may not have; only "
                "redraft's servers have modes: leave out --mode"
            )
        if told != self._mode:
            raise ValueError(
                f"{self._endpoint.url} answered in mode {told!r}, not in {self._mode!r}: name with --mode the one to "
                "evaluate"
            )

    def encode(self, text: str) -> None:
        return None

    def count_tokens(self, text: str) -> int:
        return -(-len(text) // CHARACTERS_PER_TOKEN)
