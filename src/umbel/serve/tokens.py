"""`/tokenize` and `/detokenize`, as vLLM has them: how many tokens a prompt or a conversation has, and which."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from umbel.errors import InvalidRequest
from umbel.ir.limits import check_bool, check_id_list, refuse, shown
from umbel.serve.bodies import read_object
from umbel.serve.responding import json_response
from umbel.serve.schemas import DETOKENIZE, TOKENIZE, takes
from umbel.serve.service import Service

CHAT_URL = "/v1/chat/completions"
MOST_IDS = 2**20


def tokens_router(service: Service) -> APIRouter:
    """The endpoints for the tokenizer."""
    router = APIRouter(tags=["tokens"])

    @router.post("/tokenize", summary="The tokens of a prompt or a conversation", openapi_extra=takes(TOKENIZE))
    async def tokenize(request: Request) -> Response:
        body = await read_object(request, service.settings.limits)
        return json_response(await service.read(partial(_tokenized, service, body)))

    @router.post("/detokenize", summary="The text of tokens", openapi_extra=takes(DETOKENIZE))
    async def detokenize(request: Request) -> Response:
        body = await read_object(request, service.settings.limits)
        return json_response({"prompt": await service.read(partial(_text, service, body))})

    return router


def _tokenized(service: Service, body: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of /tokenize. Raises InvalidRequest."""
    tokenizer = service.intake.tokenizer
    with_texts = _flag(body, "return_token_strs", usual=False)
    ids = _chat_ids(service, body) if body.get("messages") is not None else _prompt_ids(service, body)
    texts = [one.decode("utf-8", "replace") for one in tokenizer.token_bytes(ids)] if with_texts else None
    return {"count": len(ids), "max_model_len": service.llm.spec.max_positions, "tokens": ids, "token_strs": texts}


def _prompt_ids(service: Service, body: Mapping[str, Any]) -> list[int]:
    prompt = body.get("prompt")
    if not isinstance(prompt, str):
        refuse("invalid_type", "prompt", f"prompt={shown(prompt)}: must be a text (or give messages)")
    special = _flag(body, "add_special_tokens", usual=True)
    return service.intake.tokenizer.encode([prompt], add_special_tokens=special)[0]


def _chat_ids(service: Service, body: Mapping[str, Any]) -> list[int]:
    """The ids of a conversation, as an answer to it would be asked for."""
    beside = ("prompt", "add_special_tokens", "return_token_strs")
    row = service.reader.served(CHAT_URL, "0", {name: body[name] for name in body if name not in beside})
    text = service.intake.render([row.prompt])[0]
    if isinstance(text, InvalidRequest):
        raise text
    if _flag(body, "add_special_tokens", usual=False):
        return service.intake.tokenizer.encode([text])[0]
    return service.intake.tokenizer.encode_rendered([text])[0]


def _text(service: Service, body: Mapping[str, Any]) -> str:
    given = body.get("tokens")
    ids = [] if given == [] else list(check_id_list("tokens", given, MOST_IDS))
    wrong = [one for one in ids if one >= service.llm.spec.vocab_size]
    if wrong:
        message = f"tokens: {wrong[0]}: the model has ids from 0 to {service.llm.spec.vocab_size - 1}"
        refuse("invalid_token_id", "tokens", message)
    return service.intake.tokenizer.decode(ids, skip_special_tokens=False)


def _flag(body: Mapping[str, Any], name: str, *, usual: bool) -> bool:
    value = body.get(name)
    return usual if value is None else check_bool(name, value)
