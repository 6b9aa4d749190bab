"""POST /v1/adapters and DELETE /v1/adapters/NAME: adapters that come and go while the server runs."""

import asyncio
from pathlib import Path
from typing import Literal

from fastapi import FastAPI
from pydantic import BaseModel, Field
from starlette.responses import Response

from redraft.server.openai.answers import json_response
from redraft.server.openai.errors import ApiError, bad_request
from redraft.server.openai.fields.base import StrictModel
from redraft.server.openai.models import ModelInfo, model_info
from redraft.server.service import Service

LOAD_PATH, UNLOAD_PATH = "/v1/adapters", "/v1/adapters/{name}"
NAME_PATTERN = r"^[A-Za-z0-9][\w.:-]{0,99}$"


class AdapterRequest(StrictModel):
    """An adapter to be loaded: the model's name that it gets, and its folder, below the one that is allowed."""

    name: str = Field(pattern=NAME_PATTERN)
    path: str = Field(min_length=1, max_length=1000)


class AdapterDeleted(BaseModel):
    """An adapter that has been unloaded."""

    id: str
    object: Literal["model"] = "model"
    deleted: Literal[True] = True


def add_routes(app: FastAPI, service: Service) -> None:
    changing = asyncio.Lock()

    @app.post(LOAD_PATH, response_model=ModelInfo)
    async def load(request: AdapterRequest) -> Response:
        """Loads an adapter, which is a model of its own from then on."""
        folder = _allowed_folder(service, request.path)
        async with changing:
            if request.name in service.model_names:
                raise ApiError(409, f"there is a model {request.name!r} already", param="name", code="name_taken")
            try:
                await asyncio.to_thread(service.engine.model.load_adapter, folder, request.name)
            except ValueError as error:
                raise bad_request(str(error), "path", "invalid_value") from error
        return json_response(model_info(service, request.name))

    @app.delete(UNLOAD_PATH, response_model=AdapterDeleted)
    async def unload(name: str) -> Response:
        """Unloads an adapter, once the answers are done that are in progress with it."""
        _check_allowed(service)
        if service.model(name).adapter is None:
            raise bad_request(f"{name!r} is the model itself, not an adapter", "name", "invalid_value")
        async with changing:
            service.model(name)
            await service.unload_adapter(name)
        return json_response(AdapterDeleted(id=name))


def _check_allowed(service: Service) -> Path:
    root: Path | None = service.settings.adapter_root
    if root is None:
        message = "adapters cannot be changed here: start the server with --allow-adapter-changes FOLDER"
        raise ApiError(403, message, code="not_allowed")
    return root.resolve()


def _allowed_folder(service: Service, path: str) -> Path:
    """Returns the folder of a path, relative to the allowed one or below it. Says nothing of what lies elsewhere."""
    root = _check_allowed(service)
    try:
        folder = (root / path).resolve()
        is_there = folder.is_relative_to(root) and folder.is_dir()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, a circle of links
        is_there = False
    if not is_there:
        raise bad_request(f"path is {path!r}, which is not a folder below the allowed one", "path", "invalid_value")
    return folder
