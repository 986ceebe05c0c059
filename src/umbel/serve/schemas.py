"""JSON schemas of bodies, for /openapi.json and /docs: what clients most often send. Every other field of OpenAI and
vLLM is taken or refused by name, as in batch lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TEXT = {"type": "string"}
_IDS = {"type": "array", "items": {"type": "integer"}}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {"message": _TEXT, "type": _TEXT, "param": {"type": ["string", "null"]}, "code": _TEXT},
        }
    },
}
_SAMPLING: Mapping[str, Any] = {
    "model": _TEXT,
    "max_tokens": {"type": "integer", "minimum": 1},
    "temperature": {"type": "number", "minimum": 0, "maximum": 2},
    "top_p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    "n": {"type": "integer", "minimum": 1},
    "seed": {"type": "integer"},
    "stop": {"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]},
    "stream": {"type": "boolean"},
    "stream_options": {"type": "object", "properties": {"include_usage": {"type": "boolean"}}},
}
COMPLETION: Mapping[str, Any] = {
    "type": "object",
    "required": ["prompt"],
    "properties": {
        **_SAMPLING,
        "prompt": {"anyOf": [_TEXT, {"type": "array", "items": _TEXT}, _IDS, {"type": "array", "items": _IDS}]},
        "logprobs": {"type": "integer", "minimum": 0, "maximum": 20},
        "echo": {"type": "boolean"},
    },
}


def takes(schema: Mapping[str, Any]) -> dict[str, Any]:
    """What an endpoint's entry of /openapi.json says beside the usual: its body, and its errors."""
    error = {"description": "An error", "content": {"application/json": {"schema": _ERROR}}}
    body = {"required": True, "content": {"application/json": {"schema": dict(schema)}}}
    return {"requestBody": body, "responses": {"4XX": error, "5XX": error}}
