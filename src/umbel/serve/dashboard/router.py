"""The pages at `/` and `/prompt`, and the stream that keeps the first one up to date."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from secrets import token_urlsafe

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response, StreamingResponse

from umbel.serve.batches.desk import Asker
from umbel.serve.batches.office import Office
from umbel.serve.batches.records import BatchRecord
from umbel.serve.dashboard.engine_view import EngineView, look_at
from umbel.serve.dashboard.pages import BatchLine, PageWriter
from umbel.serve.dashboard.recent import RecentSamples
from umbel.serve.service import Service
from umbel.serve.settings import ServeSettings

SECONDS = 1.0  # between two pictures
LISTED = 12  # batches


@dataclass(slots=True)
class Dashboard:
    """What the pages show of a service, and of its batches where it has a store."""

    service: Service
    office: Office | None
    writer: PageWriter = field(init=False)
    recent: RecentSamples = field(init=False)

    def __post_init__(self) -> None:
        settings = self.service.settings
        self.writer = PageWriter(settings.names, settings.ttft_target, settings.tbt_target)
        self.recent = RecentSamples(self.service.llm.stats, self.service.pace)

    async def take(self) -> None:
        """Take a sample of the engine."""
        self.recent.take(await self.service.look(look_at) or EngineView())

    def batches(self, owner: str) -> Sequence[BatchLine] | None:
        """The last batches of a key; None where there is no store."""
        if (office := self.office) is None:
            return None
        asker = Asker(owner)
        found = [BatchRecord.of(one) for one in office.desk.batch_page(asker, None, LISTED).records]
        there = {stored["id"] for stored in office.desk.files(asker, None, 10_000, "batch", oldest_first=False).records}
        return [
            BatchLine.of(one, office.waits_for(one), office.progress(one), plan=one.input_file_id in there)
            for one in found
        ]

    def live(self, owner: str) -> str:
        """The part of the page that changes."""
        return self.writer.live(self.recent, self.service.pace, self.service.live, self.batches(owner))

    async def news(self, request: Request) -> AsyncIterator[bytes]:
        """That part again and again, as events, until the reader has left or the server ends."""
        while not await request.is_disconnected() and not self.service.ends:
            await self.take()
            yield b"data: " + orjson.dumps(await asyncio.to_thread(self.live, request.scope["tenant"])) + b"\n\n"
            await asyncio.sleep(SECONDS)


def dashboard_router(service: Service, office: Office | None) -> APIRouter:
    """The pages of a service."""
    router, board = APIRouter(include_in_schema=False), Dashboard(service, office)

    @router.get("/")
    async def dashboard(request: Request) -> Response:
        await board.take()
        batches = await asyncio.to_thread(board.batches, request.scope["tenant"])
        values = board.writer.values(board.recent, service.pace, service.live, batches)
        return page_response(board.writer, "dashboard.html", state="live", **values)

    @router.get("/prompt")
    async def prompt(request: Request) -> Response:
        models = [*service.settings.names, *service.options.loras]
        tokenizer = service.llm.intake.model.tokenizer
        chats = tokenizer is not None and tokenizer.template_text is not None
        return page_response(board.writer, "prompt.html", state="", models=models, chats=chats)

    @router.get("/live")
    async def live(request: Request) -> Response:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(board.news(request), media_type="text/event-stream", headers=headers)

    return router


def sign_in_page(settings: ServeSettings) -> Response:
    """The page that asks a browser for a key."""
    return page_response(PageWriter(settings.names), "sign_in.html", 401, state="needs a key")


def page_response(writer: PageWriter, template: str, status: int = 200, **values: object) -> HTMLResponse:
    """A page that runs its own scripts and no others."""
    nonce = token_urlsafe(16)
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; script-src 'nonce-{nonce}'"
    )
    policy += "; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    headers = {"Content-Security-Policy": policy, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    return HTMLResponse(writer.page(template, nonce=nonce, **values), status, headers)
