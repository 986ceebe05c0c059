"""Server-sent events over ASGI: each part goes out at once, and a client that goes away ends the stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from umbel.serve.responding import json_bytes

DONE = b"data: [DONE]\n\n"
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # the second one is for nginx
QUIET_SECONDS = 15.0
_KEEP_ALIVE = b": waiting\n\n"


def event_of(value: Any, name: str | None = None) -> bytes:
    """A value as an event, of a `name` where it has one."""
    data = b"data: " + json_bytes(value) + b"\n\n"
    return data if name is None else b"event: " + name.encode() + b"\n" + data


class EventStream(Response):
    """A response of events. `ended` is closed when it is over, however that comes about.

    While nothing is sent for `seconds`, comments are, which keep proxies from giving up.
    """

    media_type = "text/event-stream"

    def __init__(self, parts: AsyncGenerator[bytes, None], ended: AsyncExitStack, seconds: float = QUIET_SECONDS):
        super().__init__(None, headers=dict(_HEADERS))
        del self.headers["content-length"]
        self._parts, self._ended, self._seconds = parts, ended, seconds
        self._sent = 0  # parts that were taken
        self._sending = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events, until the last one or until the client is gone."""
        sending, gone = asyncio.ensure_future(self._send_all(send)), asyncio.ensure_future(_left(receive))
        try:
            await self._watch(sending, gone, send)
        finally:
            for task in (sending, gone):
                task.cancel()
            await asyncio.gather(sending, gone, return_exceptions=True)
            await self._parts.aclose()
            await self._ended.aclose()

    async def _watch(self, sending: asyncio.Task[None], gone: asyncio.Task[None], send: Send) -> None:
        """Wait for the end of the stream."""
        while True:
            before, first = self._sent, asyncio.FIRST_COMPLETED
            done, _ = await asyncio.wait((sending, gone), timeout=self._seconds, return_when=first)
            if sending in done:
                sending.result()
            if done:
                return
            if self._sent == before and not self._sending:
                await self._send(send, _KEEP_ALIVE)

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for part in self._parts:
            await self._send(send, part)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: Send, part: bytes) -> None:
        self._sending = True
        await send({"type": "http.response.body", "body": part, "more_body": True})
        self._sending, self._sent = False, self._sent + 1


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
