"""HTTP/1.1 by uvicorn and h11, with an end to patience: for headers that do not come, and answers that are not read."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any

import h11
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from umbel.serve.errors import ApiError, api_response, error_body, record_of
from umbel.serve.responding import json_bytes
from umbel.serve.settings import ServeLimits

SEND_BYTES = 2**17
"""What the system may hold of answers that a client has not read; it would take megabytes by itself."""


class PatientProtocol(H11Protocol):
    """A connection. One whose client does not send the head of a request in time, or leaves more than a buffer of an
    answer unread for too long, is ended: what runs for it stops, as for any client that goes away."""

    limits = ServeLimits()  # of a subclass, those of its server

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there; it has so long to ask for something."""
        super().connection_made(transport)
        if (connection := transport.get_extra_info("socket")) is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
        self._head_timer: asyncio.TimerHandle | None = None
        self._read_timer: asyncio.TimerHandle | None = None
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        for timer in (self._head_timer, self._read_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read what came; a head that has begun must come to its end in time."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._await_head()
        elif self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def pause_writing(self) -> None:
        """The buffer of what is to be read is full."""
        super().pause_writing()
        self._read_timer = self.loop.call_later(self.limits.send_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """There is room in it again."""
        if self._read_timer is not None:
            self._read_timer.cancel()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, or has a head beyond all limits, and end the connection."""
        hint = getattr(sys.exc_info()[1], "error_status_hint", 400)
        status = hint if hint < 500 else 400  # of a transfer coding that is not known, which the client chose
        code, about = ("headers_too_large", "the headers are too large") if status == 431 else ("invalid_http", msg)
        body = json_bytes(error_body(record_of(ApiError(status, code, about))))
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            for event in (h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.limits.header_seconds, self.transport.abort)


class HeaderLimit:
    """Refuses requests with more or larger headers than the limits allow."""

    def __init__(self, app: ASGIApp, limits: ServeLimits):
        self.app, self.limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        app: Any = self.app
        if scope["type"] == "http":
            count, size = len(scope["headers"]), sum(len(name) + len(value) for name, value in scope["headers"])
            if count > self.limits.headers or size > self.limits.header_bytes:
                most = f"at most {self.limits.headers} of {self.limits.header_bytes:,} bytes together"
                app = api_response(ApiError(431, "headers_too_large", f"{count} headers of {size:,} bytes: {most}"))
        await app(scope, receive, send)
