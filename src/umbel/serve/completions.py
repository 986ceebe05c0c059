"""`/v1/completions`: prompts as texts or token ids, one or a list of them, answered one by one or as a stream."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from umbel.ir.limits import refuse, shown
from umbel.serve.answering import AnswerWriter
from umbel.serve.bodies import read_object, while_there
from umbel.serve.reading import ServedRow
from umbel.serve.responding import json_response
from umbel.serve.schemas import COMPLETION, takes
from umbel.serve.service import Service

URL = "/v1/completions"


def completions_router(service: Service) -> APIRouter:
    """The endpoint for completions."""
    router, writer = APIRouter(tags=["answers"]), AnswerWriter.of(service)

    @router.post(URL, summary="Continue prompts", openapi_extra=takes(COMPLETION))
    async def completions(request: Request) -> Response:
        body = await read_object(request, service.settings.limits)
        rows = await service.read(partial(rows_of, service, body))
        outputs = await while_there(request, service.answers(rows))
        return json_response(writer.bodies(rows, outputs))

    return router


def rows_of(service: Service, body: Mapping[str, Any]) -> list[ServedRow]:
    """A row for each prompt of a body. Raises InvalidRequest."""
    rest = {name: value for name, value in body.items() if name not in ("stream", "stream_options")}
    prompts = prompts_in(body.get("prompt"), service.settings.limits.prompts)
    return [service.reader.served(URL, str(i), {**rest, "prompt": prompt}) for i, prompt in enumerate(prompts)]


def prompts_in(given: Any, most: int) -> list[Any]:
    """The prompts that a field holds: a text, token ids, or a list of one of these. Raises InvalidRequest."""
    if not isinstance(given, list) or not given or isinstance(given[0], int | float):
        return [given]
    if len(given) > most:
        refuse("array_above_max_length", "prompt", f"prompt has {len(given):,} entries: at most {most:,} a request")
    for one in given:
        if not isinstance(one, str | list):
            refuse("invalid_type", "prompt", f"prompt has an entry {shown(one)}: give texts, or lists of token ids")
    return given
