"""Embeddings, classes, scores and ranks, under the paths of OpenAI, vLLM, Jina and Cohere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from umbel.errors import InvalidRequest, UsageError
from umbel.ir.chat import Chat
from umbel.ir.inputs import Inputs
from umbel.jobs.read.branching import BranchReader
from umbel.jobs.read.formats.parse import ENDPOINTS
from umbel.jobs.read.formats.vectors import FIELDS
from umbel.jobs.write.pooled_answers import pooled_body
from umbel.serve.answering import AnswerWriter, engine_output
from umbel.serve.auth import tenant_in
from umbel.serve.bodies import read_object, while_there
from umbel.serve.reading import ServedRow
from umbel.serve.responding import json_response
from umbel.serve.schemas import VECTORS, takes
from umbel.serve.service import Service
from umbel.text.tokenizer import Tokenizer

URLS = tuple(url for url, style in ENDPOINTS.items() if style in FIELDS)


@dataclass(frozen=True, slots=True)
class Pooled:
    """What a request for vectors asks for: its inputs, and a row for each of them."""

    inputs: Inputs
    rows: Sequence[ServedRow]


@dataclass(frozen=True, slots=True)
class InputEncoder:
    """A tokenizer as the reader of inputs takes it."""

    tokenizer: Tokenizer

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text."""
        return self.tokenizer.encode(texts)

    def encode_alone(self, texts: Sequence[str]) -> list[list[int]]:
        """The same without the special tokens that begin or end a text."""
        return self.tokenizer.encode(texts, add_special_tokens=False)

    def encode_chat(self, conversations: Sequence[Chat]) -> list[list[int] | InvalidRequest]:
        """Token ids of each chat, or why it has none."""
        return self.tokenizer.encode_chat(conversations)


def vectors_router(service: Service) -> APIRouter:
    """The endpoints for vectors and what is made of them."""
    router, writer = APIRouter(tags=["vectors"]), AnswerWriter.of(service)

    async def answer(request: Request, url: str) -> Response:
        body = await read_object(request, service.settings.limits)
        ask = partial(pooled_of, service, url, body)
        pooled, outputs = await while_there(request, service.answers(ask, tenant_in(request)))
        found = [engine_output(output) for output in outputs]
        head, labels = pooled.rows[0].head, service.options.pooler.labels
        said = pooled_body(head.style, pooled.inputs, found, labels)
        return json_response(writer.now().pooled(head, said)["response"]["body"])

    for url in URLS:
        _add(router, url, answer)
    return router


def _add(router: APIRouter, url: str, answer: Any) -> None:
    style = ENDPOINTS[url]

    @router.post(url, summary=f"{style.name.capitalize()} of texts", openapi_extra=takes(VECTORS[style]))
    async def vectors(request: Request) -> Response:
        found: Response = await answer(request, url)
        return found


def pooled_of(service: Service, url: str, body: Mapping[str, Any]) -> Pooled:
    """What a body asks for. Raises InvalidRequest."""
    read, spec = service.reader.row(url, "0", body), service.llm.spec
    if service.intake.model.tokenizer is None:
        raise UsageError("this model has no tokenizer: vectors of texts need one")
    encoder = InputEncoder(service.intake.tokenizer)
    rows, branches, faults = BranchReader(encoder, spec.vocab_size, spec.max_positions, spec.bos_token_id).expand(
        [read]
    )
    for fault in faults:
        assert fault.error is not None
        raise InvalidRequest(fault.error.code, fault.error.message, fault.error.param, fault.error.status)
    inputs = branches[read.row].inputs
    assert inputs is not None
    asked = [row.request for row in rows if row.request is not None]
    return Pooled(inputs, [ServedRow(read.head, list(one.prompt or ()), one.params) for one in asked])
