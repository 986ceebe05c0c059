"""An uploaded file on its way in: a form of several parts, read within limits of size and time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from umbel.errors import InvalidRequest
from umbel.serve.batches.asked import expires_after
from umbel.serve.errors import ApiError

_MORE = 64 * 1024  # bytes of a form beside its file
_FIELDS = 20
_SLOWEST = 100_000  # bytes a second of a client that is not given up


async def read_form(request: Request, file_bytes: int) -> FormData:
    """The form of a request. Raises ApiError when it is none, is too large, or does not come in time."""
    kind = request.headers.get("content-type", "")
    found, options = parse_options_header(kind)
    if found != b"multipart/form-data" or not options.get(b"boundary"):
        message = f"Content-Type {kind[:80]!r}: must be multipart/form-data with the parts file and purpose"
        raise ApiError(415, "unsupported_media_type", message)
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > file_bytes + _MORE:
        raise _too_large(file_bytes)
    parser = MultiPartParser(request.headers, _limited(request, file_bytes), max_files=1, max_fields=_FIELDS)
    try:
        return await asyncio.wait_for(parser.parse(), 60.0 + file_bytes / _SLOWEST)
    except MultiPartException as error:
        raise ApiError(400, "invalid_form", f"the form cannot be read: {error.message}") from None
    except (KeyError, UnicodeDecodeError, ValueError) as error:
        raise ApiError(400, "invalid_form", f"the form cannot be read: {type(error).__name__}") from None
    except (TimeoutError, asyncio.TimeoutError):  # two classes before Python 3.11
        raise ApiError(408, "request_timeout", "the file did not come in time") from None


async def _limited(request: Request, file_bytes: int) -> AsyncIterator[bytes]:
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > file_bytes + _MORE:
            raise _too_large(file_bytes)
        yield part


def file_in(form: FormData, file_bytes: int) -> UploadFile:
    """The file of a form. Raises InvalidRequest where there is none, ApiError where it is too large."""
    found = form.get("file")
    if not isinstance(found, UploadFile):
        raise InvalidRequest("missing_required_parameter", "the form has no part `file` with a file name", "file")
    if (found.size or 0) > file_bytes:
        raise _too_large(file_bytes)
    return found


def text_in(form: FormData, name: str) -> str | None:
    """A field of a form, None where it is not there."""
    value = form.get(name)
    return value if isinstance(value, str) else None


def expiry_in(form: FormData) -> int | None:
    """The seconds after which the file is to be deleted: `expires_after[anchor]`, `expires_after[seconds]`."""
    given: dict[str, Any] = {}
    for name in ("anchor", "seconds"):
        if (value := text_in(form, f"expires_after[{name}]")) is not None:
            given[name] = int(value) if value.isdecimal() and len(value) < 12 else value
    found: Mapping[str, Any] | None = given or None
    return expires_after(found, "expires_after")


def _too_large(file_bytes: int) -> ApiError:
    message = f"the file is larger than {file_bytes:,} bytes, the most of an upload: split it into several batches"
    return ApiError(413, "file_too_large", message, "file")
