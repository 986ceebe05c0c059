"""Bodies of requests: JSON objects, read within limits of size and time, and watched for clients that go away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from umbel.errors import InvalidRequest
from umbel.jobs.read.formats.decode import decode_object
from umbel.serve.errors import ApiError
from umbel.serve.settings import ServeLimits

T = TypeVar("T")


async def read_object(request: Request, limits: ServeLimits) -> dict[str, Any]:
    """The JSON object that a body is. Raises ApiError."""
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        message = f"Content-Type {kind[:80]!r}: must be application/json (curl -H 'Content-Type: application/json')"
        raise ApiError(415, "unsupported_media_type", message)
    data = await read_bytes(request, limits)
    try:
        return decode_object(data, 1)
    except InvalidRequest as error:
        raise ApiError(400, "invalid_json", f"the body is no JSON object: {error.message}") from None


async def read_bytes(request: Request, limits: ServeLimits) -> bytes:
    """A whole body. Raises ApiError when it is too large or does not come in time."""
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > limits.body_bytes:
        raise _too_large(limits)
    try:
        return await asyncio.wait_for(_whole(request, limits), limits.body_seconds)
    except (TimeoutError, asyncio.TimeoutError):  # two classes before Python 3.11
        message = f"the body did not come within {limits.body_seconds:g} seconds"
        raise ApiError(408, "request_timeout", message) from None


async def _whole(request: Request, limits: ServeLimits) -> bytes:
    parts, size = list[bytes](), 0
    async for part in request.stream():
        size += len(part)
        if size > limits.body_bytes:
            raise _too_large(limits)
        parts.append(part)
    return b"".join(parts)


def _too_large(limits: ServeLimits) -> ApiError:
    message = f"the body is larger than {limits.body_bytes:,} bytes; send large work as a batch (/v1/files)"
    return ApiError(413, "request_too_large", message)


async def while_there(request: Request, work: Awaitable[T]) -> T:
    """What some work gives, unless the client goes away before: then it is cancelled. The body must have been read.
    Raises ClientDisconnect."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientDisconnect
    finally:
        for one in (task, gone):
            one.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await one


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
