"""From a generation request to requests for the engine: sampler settings, token limits, and all refusals."""

import functools
import secrets
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from redraft import CanvasStart
from redraft.api import Model
from redraft.constraints.tokens import TokenAutomaton
from redraft.engine import Request
from redraft.generation.modes import UNUSED_SETTINGS, Mode, chosen_mode, is_greedy, settings_of_mode
from redraft.server.constraints import BuiltConstraint
from redraft.server.generation import PreparedRequest
from redraft.server.openai.errors import bad_request
from redraft.server.openai.requests import CANVAS_SETTINGS, CUTS, GenerationRequest, check_cut
from redraft.server.service import Service
from redraft.server.settings import MAX_DRAWN_SEED
from redraft.text import ReadPrompt

Encoded = TypeVar("Encoded")

DRAFT_FIELDS = ("alternatives", "stream_drafts")
"""Fields of `canvas` that ask for drafts."""


def check_length(service: Service, text: str, param: str) -> None:
    """Refuses a text that is too long whatever its tokens are, before they are counted."""
    longest = service.engine.model.tokenizer.longest_token
    if (least := len(text) // longest) > service.max_context:
        raise bad_request(
            f"the prompt has {len(text)} characters, which are at least {least} tokens; the context holds "
            f"{service.max_context}: shorten the prompt", param, "context_length_exceeded",
        )  # fmt: skip


def encode(encoder: Callable[[], Encoded], param: str) -> Encoded:
    """Returns what `encoder` makes of a prompt; its ValueError becomes a refusal of `param`."""
    try:
        return encoder()
    except ValueError as error:
        raise bad_request(str(error), param, "invalid_value") from error


def sampler_settings(service: Service, request: GenerationRequest, max_tokens: int | None) -> dict[str, Any]:
    """Returns the sampler settings that are asked for. Refuses what is out of range, by the API's own names."""
    canvas = request.canvas
    given = {setting.name: getattr(canvas, setting.name) for setting in CANVAS_SETTINGS}
    given |= {"temperature": request.temperature, "seed": request.sampler_seed}
    settings: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if max_tokens is not None:
        if max_tokens > service.max_context:
            name = "max_completion_tokens" if request.max_tokens is None else "max_tokens"
            message = f"{name} is {max_tokens}, but the context holds {service.max_context} tokens"
            raise bad_request(message, name, "invalid_value")
        settings["max_new_tokens"] = max_tokens
    options = request.stream_options
    if options is not None and (options.include_usage or options.continuous_usage_stats) and not request.stream:
        raise bad_request("stream_options requires stream=true", "stream_options")
    if canvas.stream_drafts and not request.stream:
        raise bad_request("canvas.stream_drafts requires stream=true", "canvas.stream_drafts")
    if canvas.alternatives and not canvas.stream_drafts:
        raise bad_request("canvas.alternatives requires canvas.stream_drafts=true", "canvas.alternatives")
    _check_mode(request, mode := mode_of(service, request))
    if request.sampler_seed is None:
        # One for all choices, and reported, so that each can be had again.
        settings["seed"] = secrets.randbelow(MAX_DRAWN_SEED)
    try:
        chosen = service.model(request.model).defaults.replace(**settings_of_mode(mode, settings))
    except ValueError as error:
        name = str(error).split(" ", 1)[0]
        prefix = "canvas." if any(name == setting.name for setting in CANVAS_SETTINGS) else ""
        raise bad_request(f"{prefix}{error}", f"{prefix}{name}", "invalid_value") from error
    if not request.scores_prompt:
        _check_cuts(request, chosen.temperature)
    return settings


def prepare(
    service: Service,
    request: GenerationRequest,
    prompts: Sequence[ReadPrompt],
    settings: dict[str, Any],
    *,
    top_logprobs: int | None,
    param: str,
    constraint: BuiltConstraint | None = None,
    warnings: Sequence[str] = (),
) -> PreparedRequest:
    """Returns the engine's requests for some prompts. param: the field that the prompts came from.

    constraint: what the answers are held to. warnings: what will not be as it was asked for, beside what the prompts
    and the constraint say; a strict request is refused for the first.
    """
    if constraint is not None:
        _check_constrained(request, constraint)
        warnings = [*warnings, *constraint.warnings]
    canvas, mode, model = request.canvas, mode_of(service, request), service.model(request.model)
    chosen = model.defaults.replace(**settings_of_mode(mode, settings))
    if request.num_choices > 1 and is_greedy(mode, chosen.temperature):
        alike = f"all {request.num_choices} answers are the same: give a temperature, or mode 'diffusion'"
        warnings = [*warnings, alike]
    if not may_be_in_parts(request, constraint):
        prompts = [prompt.whole for prompt in prompts]
    warnings = tuple(dict.fromkeys((*warnings, *(one for prompt in prompts for one in prompt.warnings))))
    refuse_if_strict(request.strict, warnings, param)
    start = _start(service, request)
    requests: list[Request] = []
    limit = model.defaults.replace(**settings).max_new_tokens
    for prompt in prompts:
        room = _max_new_tokens(service, model, prompt.longest_ids, settings, param, mode)
        if constraint is not None:
            _check_shortest(constraint.automaton, room, is_asked=room == limit)
        fitting = settings | {"max_new_tokens": room}
        if start is not None:
            config = service.engine.model.transformer.config
            length = settings.get("canvas_length") or config.canvas_length
            encode(functools.partial(start.check, length, config.vocab_size, room), "canvas.start")
        # Each choice has its own draws, and each prompt the ones that it would have alone.
        requests += [
            service.engine.request(
                prompt,
                drafts=canvas.stream_drafts,
                top=max(canvas.alternatives, 0 if top_logprobs is None else max(top_logprobs, 1)),
                mode=mode,
                stop_ids=() if request.ignore_eos else None,
                constraint=None if constraint is None else constraint.automaton,
                adapter=model.adapter,
                start=start,
                index=index,
                **fitting,
            )
            for index in range(request.num_choices)
        ]
    return PreparedRequest(
        requests=tuple(requests),
        prompts=tuple(prompts),
        num_choices=request.num_choices,
        stop_texts=request.stop_texts,
        top_logprobs=top_logprobs,
        alternatives=canvas.alternatives,
        warnings=warnings,
        source=None if constraint is None else constraint.source,
    )


def may_be_in_parts(request: GenerationRequest, constraint: BuiltConstraint | None = None) -> bool:
    """Returns whether an answer may be made in parts: nothing that is asked for is of one canvas or one passage."""
    is_free = constraint is None or constraint.param == "schema_from_prompt"
    return is_free and request.canvas.start is None and not request.ignore_eos and not request.wants_logprobs


def _start(service: Service, request: GenerationRequest) -> CanvasStart | None:
    """Returns what the first canvas of the answers begins as."""
    canvas = request.canvas
    if canvas.start is None:
        for name, is_given in (("pinned", bool(canvas.pinned)), ("strength", canvas.strength is not None)):
            if is_given:
                raise bad_request(f"canvas.{name} requires canvas.start", f"canvas.{name}", "invalid_value")
        return None
    if request.ignore_eos:
        raise bad_request("ignore_eos does not go with canvas.start: leave one of them out", "ignore_eos")
    if (mode := mode_of(service, request)) != "diffusion":
        raise bad_request(f"canvas.start has no effect in mode {mode!r}; leave it out", "canvas.start", "invalid_value")
    given: str | list[int | None] = canvas.start
    if isinstance(given, str):
        check_length(service, given, "canvas.start")
        tokens: list[int | None] = [
            *encode(functools.partial(service.engine.model.tokenizer.encode, given), "canvas.start")
        ]
    else:
        tokens = given
    pinned = canvas.pinned or ()
    if pinned is True:
        pinned = [at for at, token in enumerate(tokens) if token is not None]
    start = functools.partial(CanvasStart, tokens=tuple(tokens), pinned=frozenset(pinned), strength=canvas.strength)
    return encode(start, "canvas.pinned")


def _check_constrained(request: GenerationRequest, constraint: BuiltConstraint) -> None:
    """Refuses what does not go with a constraint."""
    if request.ignore_eos:
        message = f"ignore_eos does not go with {constraint.param}: leave one of them out"
        raise bad_request(message, "ignore_eos", "unsupported_value")


def _check_shortest(automaton: TokenAutomaton, room: int, *, is_asked: bool) -> None:
    """Refuses a request whose answer cannot be as short as it would have to be. is_asked: by its own limit."""
    if automaton.min_tokens > room:
        limit = (
            f"max_tokens is {room}: allow more" if is_asked else f"the context has room for {room}: shorten the prompt"
        )
        message = f"the shortest answer that fits the constraint has {automaton.min_tokens} tokens, {limit}"
        raise bad_request(message, "max_tokens", "invalid_value")


def refuse_if_strict(is_strict: bool, warnings: Sequence[str], param: str) -> None:
    """Refuses a strict request that would be answered with warnings, for the first of them."""
    if is_strict and warnings:
        message = f"the request is strict, and would be answered with a warning: {warnings[0]}"
        raise bad_request(message, param, "strict")


def _max_new_tokens(
    service: Service, model: Model, prompt: list[int], settings: dict[str, Any], param: str, mode: Mode
) -> int:
    """Returns how long the answer may be: as long as asked for and as fits, in whole canvases where it has any."""
    chosen = model.defaults.replace(**settings)
    canvas = 1 if mode != "diffusion" else chosen.canvas_length or model.transformer.config.canvas_length
    room = (service.max_context - len(prompt)) // canvas * canvas
    if room <= 0:
        has, either = ("", "") if mode != "diffusion" else (f" and a canvas {canvas}", " or the canvas")
        raise bad_request(
            f"the prompt has {len(prompt)} tokens{has}; the context holds {service.max_context}: shorten the "
            f"prompt{either}", param, "context_length_exceeded",
        )  # fmt: skip
    return min(room, chosen.max_new_tokens)


def mode_of(service: Service, request: GenerationRequest) -> Mode:
    """Returns how a request is answered."""
    canvas = request.canvas
    asked = "autoregressive" if canvas.autoregressive else canvas.mode
    given = canvas.model_dump(exclude_unset=True, exclude_none=True)
    usual = service.mode_of(service.model(request.model))
    return chosen_mode(asked, usual, given, has_start=canvas.start is not None)


def _check_cuts(request: GenerationRequest, temperature: float) -> None:
    """Refuses what cuts a distribution that tokens are drawn from. temperature: the answer's, sent or not."""
    for name in CUTS:
        try:
            check_cut(name, getattr(request, name), temperature)
        except ValueError as error:
            raise bad_request(f"{name}: {error}", name, "unsupported_value") from error


def _check_mode(request: GenerationRequest, mode: Mode) -> None:
    """Refuses what has no effect in the mode that a request is answered in."""
    given = request.canvas.model_dump(exclude_unset=True, exclude_none=True)
    if given.get("autoregressive") and given.get("mode", mode) != mode:
        message = f"canvas.autoregressive contradicts canvas.mode {given['mode']!r}; leave it out"
        raise bad_request(message, "canvas.autoregressive", "unsupported_value")
    unused = set(UNUSED_SETTINGS[mode])
    if mode == "autoregressive":
        unused |= {name for name in DRAFT_FIELDS if given.get(name)}
    if names := [name for name in given if name in unused]:
        message = f"canvas.{names[0]} has no effect in mode {mode!r}; leave it out"
        raise bad_request(message, f"canvas.{names[0]}", "unsupported_value")
