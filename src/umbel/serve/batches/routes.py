"""The endpoints of files and batches, as OpenAI's clients call them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, Response

from umbel.serve.batches.asked import BatchAsked
from umbel.serve.batches.book import Page
from umbel.serve.batches.desk import Asker, Desk
from umbel.serve.batches.office import Office
from umbel.serve.batches.records import BatchRecord, FileRecord
from umbel.serve.batches.uploads import expiry_in, file_in, read_form, text_in
from umbel.serve.bodies import read_object
from umbel.serve.errors import ApiError
from umbel.serve.responding import json_response
from umbel.serve.schemas import takes_batch, takes_upload

_RETRIES, _KEY = "x-stainless-retry-count", "idempotency-key"
_MAKES = "Have the requests of a file answered; made once, also if it is sent again"
_PLANS = "What umbel plan says of a batch: text, JSON or a page"
_FORMS: Mapping[str, str] = {
    "text": "text/plain; charset=utf-8",
    "json": "application/json",
    "html": "text/html; charset=utf-8",
}


def files_router(office: Office) -> APIRouter:
    """The endpoints of /v1/files."""
    router, desk = APIRouter(tags=["files"]), office.desk

    about = "Upload a file for a batch: a form with the parts file and purpose"

    @router.post("/v1/files", summary=about, operation_id="createFile", openapi_extra=takes_upload())
    async def upload(request: Request) -> Response:
        return json_response((await _kept(desk, request)).as_openai())

    @router.get("/v1/files", summary="The files that were uploaded, and those that batches have written")
    async def listed(
        request: Request,
        after: str | None = None,
        limit: int = Query(10_000, ge=1, le=10_000),
        order: str = Query("desc", pattern="^(asc|desc)$"),
        purpose: str | None = None,
    ) -> Response:
        page = desk.files(asker_of(request), after, limit, purpose, oldest_first=order == "asc")
        return json_response(_list(page, [FileRecord(**record).as_openai() for record in page.records]))

    @router.get("/v1/files/{file_id}", summary="A file's object", operation_id="retrieveFile")
    async def file(request: Request, file_id: str) -> Response:
        return json_response(desk.file(asker_of(request), file_id).as_openai())

    @router.get("/v1/files/{file_id}/content", summary="A file's bytes", operation_id="downloadFile")
    async def content(request: Request, file_id: str) -> Response:
        record = desk.file(asker_of(request), file_id)
        path = desk.folder.path_of(record.path)
        if not path.exists():
            raise ApiError(410, "file_lost", f"file {file_id} was removed from the server's store by hand", "file_id")
        return FileResponse(path, media_type="application/jsonl")

    @router.delete(
        "/v1/files/{file_id}", summary="Delete a file that no batch needs any more", operation_id="deleteFile"
    )
    async def delete(request: Request, file_id: str) -> Response:
        await asyncio.to_thread(desk.delete_file, asker_of(request), file_id)
        return json_response({"id": file_id, "object": "file", "deleted": True})

    return router


async def _kept(desk: Desk, request: Request) -> FileRecord:
    """Keep the file of a request."""
    most = desk.limits.file_bytes
    form = await read_form(request, most)
    try:
        found, purpose = file_in(form, most), text_in(form, "purpose") or ""
        facts = (asker_of(request), found.filename or "", purpose, found.file, expiry_in(form))
        return await asyncio.to_thread(desk.upload, *facts)
    finally:
        await form.close()


def batches_router(office: Office) -> APIRouter:
    """The endpoints of /v1/batches."""
    router, desk = APIRouter(tags=["batches"]), office.desk

    def shown(batch: BatchRecord) -> dict[str, Any]:
        return batch.as_openai(office.model, office.waits_for(batch))

    @router.post("/v1/batches", summary=_MAKES, operation_id="createBatch", openapi_extra=takes_batch())
    async def make(request: Request) -> Response:
        body = await read_object(request, office.settings.limits)
        return json_response(shown(await asyncio.to_thread(desk.make, asker_of(request), BatchAsked.of(body))))

    @router.get("/v1/batches", summary="Batches, the newest first")
    async def listed(request: Request, after: str | None = None, limit: int = Query(20, ge=1, le=100)) -> Response:
        page = desk.batch_page(asker_of(request), after, limit)
        return json_response(_list(page, [shown(BatchRecord.of(record)) for record in page.records]))

    @router.get("/v1/batches/{batch_id}", summary="A batch, and what it waits for", operation_id="retrieveBatch")
    async def batch(request: Request, batch_id: str) -> Response:
        return json_response(shown(desk.batch(asker_of(request), batch_id)))

    @router.post(
        "/v1/batches/{batch_id}/cancel", summary="End a batch with the answers that it has", operation_id="cancelBatch"
    )
    async def cancel(request: Request, batch_id: str) -> Response:
        return json_response(shown(await asyncio.to_thread(desk.cancel, asker_of(request), batch_id)))

    @router.get("/v1/batches/{batch_id}/plan", summary=_PLANS, operation_id="planBatch")
    async def plan(
        request: Request,
        batch_id: str,
        form: str | None = Query(None, alias="format", pattern="^(text|json|html)$"),
        verbose: bool = False,
    ) -> Response:
        found, wanted = desk.batch(asker_of(request), batch_id), form or _form_of(request.headers.get("accept", ""))
        text = await asyncio.to_thread(partial(office.plan, found, wanted, verbose=verbose))
        return Response(text, media_type=_FORMS[wanted])

    return router


def asker_of(request: Request) -> Asker:
    """Who sends a request, and whether it was sent before."""
    retries = request.headers.get(_RETRIES, "0")
    return Asker(request.scope["tenant"], retries.isdecimal() and int(retries) > 0, request.headers.get(_KEY))


def _list(page: Page, data: list[dict[str, Any]]) -> dict[str, Any]:
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return {"object": "list", "data": data, **ends, "has_more": page.has_more}


def _form_of(accept: str) -> str:
    """The first form that an Accept header names; text where it names none."""
    kinds = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    names = {"text/html": "html", "application/json": "json", "text/plain": "text"}
    return next((names[kind] for kind in kinds if kind in names), "text")
