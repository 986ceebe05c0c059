"""Errors as OpenAI's clients read them: a status, and a body with a message, a type, the field at fault and a code."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from umbel.errors import InvalidRequest, UmbelError
from umbel.ir.contain import row_error
from umbel.ir.request import RowError

LOG = logging.getLogger("umbel.serve")
_CODES = {404: "not_found", 405: "method_not_allowed", 413: "request_too_large", 415: "unsupported_media_type"}


class ApiError(Exception):
    """A request that gets an error of this status; `after`: seconds after which it may be sent again."""

    def __init__(self, status: int, code: str, message: str, param: str | None = None, after: int | None = None):
        super().__init__(code)  # what is logged of it; messages may quote what a client sent
        self.status, self.code, self.message, self.param, self.after = status, code, message, param, after


def error_body(error: RowError) -> dict[str, Any]:
    """The body of an error's response."""
    return {"error": error.body()}


def failed(error: RowError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The response to a request whose row has no answer."""
    return JSONResponse(error_body(error), error.status, dict(headers or {}))


def api_response(error: ApiError) -> JSONResponse:
    """The response that an error asks for."""
    return failed(record_of(error), None if error.after is None else {"Retry-After": str(error.after)})


def record_of(error: ApiError) -> RowError:
    """An error as a record."""
    return RowError(error.code, error.message, error.param, _type_of(error.status), error.status)


def _type_of(status: int) -> str:
    names = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    return names.get(status, "server_error" if status >= 500 else "invalid_request_error")


def install(app: FastAPI) -> None:
    """Have an app answer every error in this form."""

    async def of_api(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ApiError)
        return api_response(error)

    async def of_row(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, InvalidRequest)
        return failed(row_error(error))

    async def of_usage(request: Request, error: Exception) -> JSONResponse:
        return api_response(ApiError(400, "invalid_value", str(error)))

    async def of_http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        code = _CODES.get(error.status_code, "invalid_request")
        found = api_response(ApiError(error.status_code, code, f"{request.method} {request.url.path}: {error.detail}"))
        found.headers.update(error.headers or {})
        return found

    async def of_fields(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or None
        return api_response(ApiError(400, "invalid_value", f"{where or 'request'}: {first['msg']}", where))

    for kind, answer in (
        (ApiError, of_api),
        (InvalidRequest, of_row),
        (UmbelError, of_usage),
        (HTTPException, of_http),
        (RequestValidationError, of_fields),
    ):
        app.add_exception_handler(kind, answer)


class Contained:
    """Answers what no handler foresaw by an error of status 500, and logs where it was, without what a client sent."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = False

        async def note(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, note)
        except Exception as error:
            LOG.error("%s %s: %s", scope["method"], scope["path"], where_of(error))
            if not begun:
                message = f"{type(error).__name__}: no check foresaw it; other requests are not affected"
                await api_response(ApiError(500, "internal_error", message))(scope, receive, send)


def where_of(error: BaseException) -> str:
    """The kind of an error and the lines that it came through, without its text, which may quote a prompt."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} at " + " < ".join(f"{f.filename}:{f.lineno}" for f in reversed(frames[-8:]))
