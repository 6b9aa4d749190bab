"""GET /v1/models and GET /v1/models/NAME."""

from typing import Any, Literal

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, create_model
from starlette.responses import Response

from redraft import SETTINGS
from redraft.generation.modes import Mode
from redraft.server.openai.answers import json_response
from redraft.server.openai.requests import OPENAI_NAMES
from redraft.server.service import Service
from redraft.weights.card import Card

DEFAULTS = {
    OPENAI_NAMES.get(setting.name, setting.name): setting for setting in SETTINGS if not setting.belongs_to_request
}
"""The settings that a checkpoint has defaults for, by the API's names."""

CanvasDefaults: Any = create_model(
    "CanvasDefaults",
    __doc__="The settings of a request that leaves them out; those of rules that are not chosen have no value.",
    **{name: (setting.type | None, None) for name, setting in DEFAULTS.items()},  # type: ignore[call-overload]
)


class ModelInfo(BaseModel):
    """A model, its limits and defaults, and its own description.

    parent: the model whose adapter it is. mode: how its answers are written where a request does not say.
    example_fields: of each example of the card, the keys of the JSON object that it asks for.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "redraft"
    parent: str | None = None
    max_model_len: int
    mode: Mode
    canvas: CanvasDefaults
    card: Card
    example_fields: list[tuple[str, ...]]


class ModelList(BaseModel):
    """The models that are served: the one that was loaded, and what its adapters make of it."""

    object: Literal["list"] = "list"
    data: list[ModelInfo]


def add_routes(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models", response_model=ModelList)
    async def models() -> Response:
        """Returns each model, its limits, its defaults, and its own description."""
        return json_response(ModelList(data=[model_info(service, name) for name in service.model_names]))

    @app.get("/v1/models/{model:path}", response_model=ModelInfo)
    async def model(model: str) -> Response:
        """Returns the same about one model."""
        if not model:
            raise HTTPException(404)
        return json_response(model_info(service, model))


def model_info(service: Service, name: str) -> ModelInfo:
    model = service.model(name)
    values = model.defaults.flat()
    defaults = {name: values.get(setting.name) for name, setting in DEFAULTS.items()}
    defaults["canvas_length"] = defaults["canvas_length"] or model.transformer.config.canvas_length
    defaults["max_tokens"] = min(model.defaults.max_new_tokens, service.max_context)
    return ModelInfo(
        id=name,
        parent=None if model.adapter is None else service.name,
        created=service.created,
        max_model_len=service.max_context,
        mode=service.mode_of(model),
        canvas=CanvasDefaults(**defaults),
        card=model.card,
        example_fields=[task.fields if (task := model.card.task_of(text)) else () for text in model.card.examples],
    )
