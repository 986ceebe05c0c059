"""Responses in JSON, written by orjson, which is several times quicker than what frameworks come with."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi.responses import Response


def json_bytes(value: Any) -> bytes:
    """A value as JSON; numbers that JSON has not are null."""
    return orjson.dumps(value)


def json_response(value: Any, status: int = 200) -> Response:
    """A value as a response."""
    return Response(json_bytes(value), status, media_type="application/json")
