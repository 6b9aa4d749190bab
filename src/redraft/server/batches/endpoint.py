"""/v1/files and /v1/batches, https://platform.openai.com/docs/api-reference/batch"""

import asyncio
import os
import re
import secrets
import time
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from fastapi import FastAPI, Request
from starlette.datastructures import UploadFile
from starlette.responses import FileResponse, JSONResponse, Response

from redraft.batch.requests import URLS
from redraft.server.batches.store import BatchStore
from redraft.server.batches.worker import ENDED, BatchWorker
from redraft.server.openai.errors import ApiError, bad_request
from redraft.server.openai.fields.base import StrictModel
from redraft.server.openai.requests import Metadata

WINDOW = "24h"
WINDOW_SECONDS = 24 * 3600
MAX_LISTED = 10_000
COPIED_BYTES = 2**20
Found = TypeVar("Found")


class BatchRequest(StrictModel):
    """The request of POST /v1/batches."""

    input_file_id: str
    endpoint: Literal[URLS]  # type: ignore[valid-type]
    completion_window: Literal["24h"]
    metadata: Metadata | None = None


def add_routes(app: FastAPI, store: BatchStore, worker: BatchWorker) -> None:
    add_file_routes(app, store)
    add_batch_routes(app, store, worker)


def add_file_routes(app: FastAPI, store: BatchStore) -> None:
    @app.post("/v1/files")
    async def upload(http: Request) -> Response:
        """Takes a file of a batch's requests, as the field `file` of a form whose field `purpose` is batch."""
        async with http.form(max_files=1, max_fields=4) as form:
            file, purpose = form.get("file"), form.get("purpose")
            if not isinstance(file, UploadFile):
                raise bad_request("file is missing: send it as multipart/form-data", "file")
            if purpose != "batch":
                raise bad_request(f"purpose is {str(purpose)[:100]!r}, must be 'batch'", "purpose")
            new = store.folder / "files" / f".{secrets.token_hex(16)}.new"
            try:
                with new.open("wb") as copy:
                    while part := await file.read(COPIED_BYTES):
                        await asyncio.to_thread(copy.write, part)
                    await asyncio.to_thread(_sync, copy)
                name = re.sub(r"[^\w. -]", "_", file.filename or "")[:200] or "file"
                told = await asyncio.to_thread(store.add_file, _owner(http), new, name=name, purpose=purpose)
            finally:
                new.unlink(missing_ok=True)
        return JSONResponse(told)

    @app.get("/v1/files")
    async def files(http: Request, after: str | None = None, limit: int = MAX_LISTED) -> Response:
        """Lists files, the newest first."""
        return await _listed(store.files, _owner(http), after, limit)

    @app.get("/v1/files/{id}")
    async def file(http: Request, id: str) -> Response:
        """Returns what is known of a file."""
        return JSONResponse(_found(await asyncio.to_thread(store.file, _owner(http), id), "file", id))

    @app.get("/v1/files/{id}/content")
    async def content(http: Request, id: str) -> Response:
        """Returns a file's content."""
        told = _found(await asyncio.to_thread(store.file, _owner(http), id), "file", id)
        return FileResponse(store.path(told["id"]), media_type="application/jsonl")

    @app.delete("/v1/files/{id}")
    async def delete(http: Request, id: str) -> Response:
        """Deletes a file, but one that a batch is working on."""
        for owner, batch in await asyncio.to_thread(store.unfinished):
            if owner == _owner(http) and batch["input_file_id"] == id:
                raise ApiError(409, f"{batch['id']} is working on this file: cancel it first", code="file_in_use")
        if not await asyncio.to_thread(store.delete_file, _owner(http), id):
            _found(None, "file", id)
        return JSONResponse({"id": id, "object": "file", "deleted": True})


def add_batch_routes(app: FastAPI, store: BatchStore, worker: BatchWorker) -> None:
    @app.post("/v1/batches")
    async def create(http: Request, request: BatchRequest) -> Response:
        """Begins a batch over an uploaded file."""
        owner, now = _owner(http), int(time.time())
        _found(await asyncio.to_thread(store.file, owner, request.input_file_id), "file", request.input_file_id)
        times = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
        told: dict[str, Any] = {
            "id": f"batch_{secrets.token_hex(16)}", "object": "batch", "endpoint": request.endpoint, "errors": None,
            "input_file_id": request.input_file_id, "completion_window": WINDOW, "status": "validating",
            "output_file_id": None, "error_file_id": None, "created_at": now, "expires_at": now + WINDOW_SECONDS,
            **{f"{name}_at": None for name in times},
            "request_counts": {"total": 0, "completed": 0, "failed": 0}, "metadata": request.metadata,
        }  # fmt: skip
        await asyncio.to_thread(store.add_batch, owner, told)
        worker.wake()
        return JSONResponse(told)

    @app.get("/v1/batches")
    async def batches(http: Request, after: str | None = None, limit: int = 20) -> Response:
        """Lists batches, the newest first."""
        return await _listed(store.batches, _owner(http), after, limit)

    @app.get("/v1/batches/{id}")
    async def batch(http: Request, id: str) -> Response:
        """Returns how far a batch is."""
        return JSONResponse(_found(await asyncio.to_thread(store.batch, _owner(http), id), "batch", id))

    @app.post("/v1/batches/{id}/cancel")
    async def cancel(http: Request, id: str) -> Response:
        """Ends a batch; what it has answered is in its output file."""
        told = _found(await asyncio.to_thread(store.batch, _owner(http), id), "batch", id)
        if told["status"] in ENDED:
            raise ApiError(409, f"the batch is {told['status']} already", code="batch_ended")
        told = await asyncio.to_thread(
            store.change_batch, id, unless=ENDED, status="cancelling", cancelling_at=int(time.time())
        )
        return JSONResponse(told)


async def _listed(read: Callable[..., Any], owner: str, after: str | None, limit: int) -> Response:
    if not 1 <= limit <= MAX_LISTED:
        raise bad_request(f"limit is {limit}, must lie between 1 and {MAX_LISTED}", "limit", "invalid_value")
    data, has_more = await asyncio.to_thread(read, owner, after=after, limit=limit)
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return JSONResponse({"object": "list", "data": data, **ends, "has_more": has_more})


def _found(told: Found | None, kind: str, id: str) -> Found:
    if told is None:
        shown = re.sub(r"[^\x20-\x7e]", "?", id[:100])
        raise ApiError(404, f"there is no {kind} {shown!r}", param="id", code="not_found")
    return told


def _owner(http: Request) -> str:
    """Returns whose files a request may see: those of its key."""
    owner: str = http.state.owner
    return owner


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
