"""POST /v1/decisions: typed questions about a text; and POST /v1/systemone, the same in the format of other servers."""

import functools
import json
from typing import Annotated, Any, cast

from fastapi import FastAPI
from pydantic import BaseModel, Field
from starlette.responses import Response

from redraft import Decision, QueueFull
from redraft.decisions import MAX_AVERAGED, MAX_PASSES, TypedQuestion, question_of, warnings_of
from redraft.server.openai.answers import json_response
from redraft.server.openai.errors import bad_request, retry_later
from redraft.server.openai.fields.base import StrictModel
from redraft.server.openai.preparation import check_length
from redraft.server.service import Service

MAX_CANVASES = 64
"""Questions times orders times draws of one request: what the others wait for at most."""
Averaged = Annotated[int, Field(ge=1, le=MAX_AVERAGED)]
Questions = Annotated[dict[str, dict[str, Any]], Field(min_length=1, max_length=MAX_CANVASES)]


class DecisionRequest(StrictModel):
    """The request of POST /v1/decisions. questions: by name, each with type, instructions and criteria."""

    model: str | None = None
    text: Annotated[str, Field(min_length=1)]
    questions: Questions
    passes: Annotated[int, Field(ge=1, le=MAX_PASSES)] = 1
    orders: Averaged = 1
    draws: Averaged = 1
    temperature: Annotated[float, Field(gt=0, le=100)] = 1.0
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0


class SystemOneRequest(StrictModel):
    """The request of POST /v1/systemone. state: a text, or JSON that is shown as it is."""

    model: str | None = None
    state: str | dict[str, Any] | list[Any]
    questions: Questions


class DecidedQuestion(BaseModel):
    """What was decided. score: the mean level, of a score only."""

    label: str
    probabilities: dict[str, float]
    confidence: float
    entropy: float
    log_mass: float
    score: float | None = None


class DecisionResponse(BaseModel):
    """The answer of POST /v1/decisions."""

    object: str = "decisions"
    model: str
    seed: int
    answers: dict[str, DecidedQuestion]
    warnings: list[str] | None = None


class SystemOneResponse(BaseModel):
    """The answer of POST /v1/systemone."""

    model: str
    answers: dict[str, dict[str, Any]]
    usage: dict[str, int]
    warnings: list[str] | None = None


def add_routes(app: FastAPI, service: Service) -> None:
    @app.post("/v1/decisions", response_model=DecisionResponse)
    async def decide(request: DecisionRequest) -> Response:
        """Decides questions about a text by the probabilities of their labels; nothing is generated."""
        found = await _decide(service, request, _questions(request.questions))
        answers = {
            name: DecidedQuestion(
                label=one.label, probabilities=one.probabilities, confidence=one.confidence, entropy=one.entropy,
                log_mass=one.log_mass, score=one.score,
            )
            for name, one in found.items()
        }  # fmt: skip
        return json_response(
            DecisionResponse(
                model=request.model or service.name, seed=request.seed, answers=answers,
                warnings=warnings_of(found) or None,
            )
        )  # fmt: skip

    @app.post("/v1/systemone", response_model=SystemOneResponse)
    async def system_one(request: SystemOneRequest) -> Response:
        """The same, with `noul`, `choice` and `score`."""
        questions = _questions(request.questions)
        state = request.state if isinstance(request.state, str) else json.dumps(request.state, ensure_ascii=False)
        asked = DecisionRequest(model=request.model, text=state or " ", questions=request.questions)
        found = await _decide(service, asked, questions, param="state")
        tokens = len(service.engine.model.tokenizer.encode(state))
        return json_response(
            SystemOneResponse(
                model=request.model or service.name,
                answers={name: _system_one(questions[name], one) for name, one in found.items()},
                usage={"input_tokens": tokens, "output_tokens": 0},
                warnings=warnings_of(found) or None,
            )
        )


def _questions(given: dict[str, dict[str, Any]]) -> dict[str, TypedQuestion]:
    found = {}
    for name, one in given.items():
        try:
            found[name] = question_of(name, one)
        except ValueError as error:
            raise bad_request(str(error), f"questions.{name}", "invalid_value") from error
    return found


async def _decide(
    service: Service, request: DecisionRequest, questions: dict[str, TypedQuestion], param: str = "text"
) -> dict[str, Decision]:
    model = service.model(request.model)
    check_length(service, request.text, param)
    if (canvases := len(questions) * request.orders * request.draws) > MAX_CANVASES:
        raise bad_request(
            f"questions times orders times draws are {canvases}, the limit is {MAX_CANVASES}: send fewer at a time",
            "questions", "invalid_value",
        )  # fmt: skip
    work = functools.partial(
        model.decide, request.text, questions, passes=request.passes, orders=request.orders, draws=request.draws,
        temperature=request.temperature, seed=request.seed,
    )  # fmt: skip
    try:
        with service.using(model.adapter):
            return cast(dict[str, Decision], await service.engine.call(work))
    except QueueFull as error:
        raise retry_later(429, str(error), 1, "queue_full") from error
    except ValueError as error:
        raise bad_request(str(error), param, "invalid_value") from error


def _system_one(question: TypedQuestion, decision: Decision) -> dict[str, Any]:
    probabilities, confidence = decision.probabilities, decision.confidence
    if question.kind == "yes_no":
        return {"type": "noul", "noul": probabilities["yes"]}
    if question.kind == "choice":
        return {
            "type": "choice", "choice": decision.label, "probabilities": probabilities, "confidence": confidence,
        }  # fmt: skip
    return {
        "type": "score", "score": decision.score, "legend": dict(question.descriptions),
        "probabilities": probabilities, "confidence": confidence,
    }  # fmt: skip
