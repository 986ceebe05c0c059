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


def takes(schema: Mapping[str, Any]) -> dict[str, Any]:
    """What an endpoint's entry of /openapi.json says beside the usual: its body, and its errors."""
    error = {"description": "An error", "content": {"application/json": {"schema": dict(ERROR)}}}
    body = {"required": True, "content": {"application/json": {"schema": dict(schema)}}}
    return {"requestBody": body, "responses": {"4XX": error, "5XX": error}}
