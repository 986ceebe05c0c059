"""JSON schemas of bodies, for /openapi.json and /docs: what clients most often send. Every other field of OpenAI and
vLLM is taken or refused by name, as in batch lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from umbel.jobs.read.records import Style

_TEXT = {"type": "string"}
_IDS = {"type": "array", "items": {"type": "integer"}}
ERROR: Mapping[str, Any] = {
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
CHAT: Mapping[str, Any] = {
    "type": "object",
    "required": ["messages"],
    "properties": {
        **_SAMPLING,
        "messages": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["role", "content"],
                "properties": {"role": {"enum": ["system", "user", "assistant"]}, "content": _TEXT},
            },
        },
        "logprobs": {"type": "boolean"},
        "top_logprobs": {"type": "integer", "minimum": 0, "maximum": 20},
        "tools": {"type": "array", "items": {"type": "object"}},
        "response_format": {"type": "object", "properties": {"type": _TEXT}},
    },
}
RESPONSE: Mapping[str, Any] = {
    "type": "object",
    "required": ["input"],
    "properties": {
        "model": _TEXT,
        "input": {"anyOf": [_TEXT, CHAT["properties"]["messages"]]},
        "instructions": _TEXT,
        "max_output_tokens": {"type": "integer", "minimum": 1},
        "temperature": _SAMPLING["temperature"],
        "top_p": _SAMPLING["top_p"],
        "stream": {"type": "boolean"},
    },
}
_TEXTS = {"anyOf": [_TEXT, {"type": "array", "minItems": 1, "items": _TEXT}]}
TOKENIZE: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "prompt": _TEXT,
        "messages": CHAT["properties"]["messages"],
        "add_special_tokens": {"type": "boolean"},
    },
}
DETOKENIZE: Mapping[str, Any] = {"type": "object", "required": ["tokens"], "properties": {"tokens": _IDS}}
_INPUT = {
    "type": "object",
    "required": ["input"],
    "properties": {"model": _TEXT, "input": {"anyOf": [*_TEXTS["anyOf"], _IDS]}},
}
VECTORS: Mapping[Style, Mapping[str, Any]] = {
    Style.EMBEDDINGS: _INPUT,
    Style.CLASSIFY: _INPUT,
    Style.SCORE: {
        "type": "object",
        "required": ["text_1", "text_2"],
        "properties": {"model": _TEXT, "text_1": _TEXTS, "text_2": _TEXTS},
    },
    Style.RERANK: {
        "type": "object",
        "required": ["query", "documents"],
        "properties": {
            "model": _TEXT,
            "query": _TEXT,
            "documents": {"type": "array", "minItems": 1, "items": _TEXT},
            "top_n": {"type": "integer"},
        },
    },
}


_ERROR = {"description": "An error", "content": {"application/json": {"schema": dict(ERROR)}}}
_ERRORS = {"4XX": _ERROR, "5XX": _ERROR}


def takes(schema: Mapping[str, Any]) -> dict[str, Any]:
    """What an endpoint's entry of /openapi.json says beside the usual: its body, and its errors."""
    body = {"required": True, "content": {"application/json": {"schema": dict(schema)}}}
    return {"requestBody": body, "responses": dict(_ERRORS)}


_EXPIRES = {
    "type": "object",
    "required": ["anchor", "seconds"],
    "properties": {
        "anchor": {"enum": ["created_at"]},
        "seconds": {"type": "integer", "minimum": 3_600, "maximum": 30 * 86_400},
    },
}
_UPLOAD: Mapping[str, Any] = {
    "type": "object",
    "required": ["file", "purpose"],
    "properties": {"file": {"type": "string", "format": "binary"}, "purpose": {"enum": ["batch"]}},
}
BATCH: Mapping[str, Any] = {
    "type": "object",
    "required": ["input_file_id", "endpoint", "completion_window"],
    "properties": {
        "input_file_id": _TEXT,
        "endpoint": {"enum": ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings", "*"]},
        "completion_window": {"enum": ["24h", "90s", "15m", "2h"]},
        "metadata": {"type": "object", "maxProperties": 16, "additionalProperties": {"type": "string"}},
        "output_expires_after": _EXPIRES,
    },
    "additionalProperties": False,
}


def takes_upload() -> dict[str, Any]:
    """The same for the form of an upload, whose file can be looked at, deleted, and used by a batch."""
    ways = {name: _way(name, "file_id") for name in ("retrieveFile", "downloadFile", "deleteFile")}
    ways["createBatch"] = {"operationId": "createBatch", "requestBody": {"input_file_id": "$response.body#/id"}}
    body = {"required": True, "content": {"multipart/form-data": {"schema": dict(_UPLOAD)}}}
    return {"requestBody": body, "responses": _answers(ways)}


def takes_batch() -> dict[str, Any]:
    """The same for a new batch, which can be looked at and cancelled."""
    ways = {name: _way(name, "batch_id") for name in ("retrieveBatch", "cancelBatch", "planBatch")}
    return takes(BATCH) | {"responses": _answers(ways)}


def _way(operation: str, parameter: str) -> dict[str, Any]:
    return {"operationId": operation, "parameters": {parameter: "$response.body#/id"}}


def _answers(links: Mapping[str, Any]) -> dict[str, Any]:
    return {"200": {"description": "The object", "links": dict(links)}, **_ERRORS}
