"""`/v1/responses`: OpenAI's newer way to ask for an answer, at once or as a stream of events; nothing is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from umbel.engine.request_output import RequestOutput
from umbel.jobs.write.openai_answers import OpenAIAnswers
from umbel.serve.answering import AnswerWriter, engine_output
from umbel.serve.auth import tenant_in
from umbel.serve.bodies import read_object, while_there
from umbel.serve.chat import chat_rows
from umbel.serve.events import event_of
from umbel.serve.mailbox import News
from umbel.serve.parts import PartReader
from umbel.serve.reading import ServedRow, ServedRows
from umbel.serve.responding import json_response
from umbel.serve.response_bodies import ResponseHead, call_item, chat_body, text_part
from umbel.serve.schemas import RESPONSE, takes
from umbel.serve.service import Service
from umbel.serve.streaming import stream_answers, streams

URL = "/v1/responses"


def responses_router(service: Service) -> APIRouter:
    """The endpoint for responses."""
    router, writer = APIRouter(tags=["answers"]), AnswerWriter.of(service)

    @router.post(URL, summary="Answer an input", openapi_extra=takes(RESPONSE))
    async def responses(request: Request) -> Response:
        body = await read_object(request, service.settings.limits)
        stream, _ = streams(body)
        answers, ask = writer.now(), partial(_rows, service, body)

        def head_of(asked: ServedRows) -> ResponseHead:
            return ResponseHead(answers.tag(asked.rows[0].head), answers.issuer.created, answers.issuer.model, body)

        if stream:
            return await stream_answers(
                service, request, ask, lambda asked: ResponseEvents(service, asked.rows[0], answers, head_of(asked))
            )
        asked, (output,) = await while_there(request, service.answers(ask, tenant_in(request)))
        return json_response(response_body(asked.rows[0], answers, head_of(asked), output))

    return router


def _rows(service: Service, body: Mapping[str, Any]) -> ServedRows:
    return chat_rows(service, chat_body(body))


def response_body(row: ServedRow, answers: OpenAIAnswers, head: ResponseHead, output: RequestOutput) -> dict[str, Any]:
    """The response object of an answer. Raises InvalidRequest where there is none."""
    engine_output(output)
    one = output.outputs[0]
    answer = answers.read(row.head, one)
    items = [] if answer.reasoning is None else [head.item("reasoning", answer.reasoning)]
    if answer.content is not None:
        items.append(head.item("message", answer.content))
    items += [call_item(call) for call in answers.calls(row.head, one, answer.calls)]
    return head.body("incomplete" if one.finish_reason == "length" else "completed", items, output)


class ResponseEvents:
    """The events of one response. Calls come whole, behind the text."""

    def __init__(self, service: Service, row: ServedRow, answers: OpenAIAnswers, head: ResponseHead):
        self._row, self._answers, self._head = row, answers, head
        self._parts = PartReader(service.options.answers, row.head)
        self._number = 0
        self._items = 0  # that were begun
        self._open: str | None = None  # the kind of the item that grows
        self._text = ""  # of that item
        self._said = {"reasoning": False, "message": False}

    def begin(self) -> Sequence[bytes]:
        """That an answer is being made."""
        body = self._head.body("in_progress")
        return [self._event(f"response.{name}", response=body) for name in ("created", "in_progress")]

    def of(self, news: News) -> Sequence[bytes]:
        """The events that news give."""
        if news.output is None:
            return self._told(self._parts.push(news.text))
        one = news.output.outputs[0]
        answer = self._answers.read(self._row.head, one)
        found = self._told(self._parts.finish(answer))
        if answer.content is not None and not self._said["message"]:
            found += self._switch("message")
        found += self._closed()
        for call in self._answers.calls(self._row.head, one, answer.calls):
            found += self._call(call_item(call))
        body = response_body(self._row, self._answers, self._head, news.output)
        return [*found, self._event(f"response.{body['status']}", response=body)]

    def end(self) -> Sequence[bytes]:
        """Nothing comes behind the whole response."""
        return ()

    def _told(self, delta: Mapping[str, str]) -> list[bytes]:
        found = list[bytes]()
        for name, kind, event in (
            ("reasoning_content", "reasoning", "response.reasoning_text.delta"),
            ("content", "message", "response.output_text.delta"),
        ):
            if text := delta.get(name):
                found += self._switch(kind)
                self._text += text
                more = {"logprobs": []} if kind == "message" else {}
                found.append(self._event(event, **self._place(), content_index=0, delta=text, **more))
        return found

    def _switch(self, kind: str) -> list[bytes]:
        """Begin an item of a kind, unless it is the one that grows."""
        if self._open == kind:
            return []
        found = self._closed()
        self._open, self._text, self._items = kind, "", self._items + 1
        self._said[kind] = True
        item = self._head.item(kind, status="in_progress")
        place = self._place()
        return [
            *found,
            self._event("response.output_item.added", output_index=place["output_index"], item=item),
            self._event("response.content_part.added", **place, content_index=0, part=text_part(kind, "")),
        ]

    def _closed(self) -> list[bytes]:
        """End the item that grows."""
        if self._open is None:
            return []
        kind, text, place = self._open, self._text, self._place()
        done = "response.output_text.done" if kind == "message" else "response.reasoning_text.done"
        more = {"logprobs": []} if kind == "message" else {}
        self._open = None
        item = self._head.item(kind, text)
        return [
            self._event(done, **place, content_index=0, text=text, **more),
            self._event("response.content_part.done", **place, content_index=0, part=text_part(kind, text)),
            self._event("response.output_item.done", output_index=place["output_index"], item=item),
        ]

    def _call(self, item: dict[str, Any]) -> list[bytes]:
        index, self._items = self._items, self._items + 1
        place, arguments = {"output_index": index, "item_id": item["id"]}, item["arguments"]
        begun = item | {"arguments": "", "status": "in_progress"}
        name = "response.function_call_arguments"
        return [
            self._event("response.output_item.added", output_index=index, item=begun),
            self._event(f"{name}.delta", **place, delta=arguments),
            self._event(f"{name}.done", **place, name=item["name"], arguments=arguments),
            self._event("response.output_item.done", output_index=index, item=item),
        ]

    def _place(self) -> dict[str, Any]:
        id = self._head.item(self._open or "message")["id"]
        return {"output_index": self._items - 1, "item_id": id}

    def _event(self, event: str, /, **values: Any) -> bytes:
        number, self._number = self._number, self._number + 1
        return event_of({"type": event, "sequence_number": number, **values}, event)
