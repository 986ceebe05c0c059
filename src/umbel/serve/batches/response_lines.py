"""Requests to `/v1/responses` in batches: jobs see them as chats, and lines are translated on their way in and out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from umbel.errors import InvalidRequest
from umbel.ir.contain import row_error
from umbel.jobs.read.formats.decode import decode_object
from umbel.jobs.read.formats.lines import read_lines
from umbel.serve.batches.folder import sync_folder
from umbel.serve.response_bodies import ResponseHead, call_item, chat_body

URL, CHAT = "/v1/responses", "/v1/chat/completions"
CHATS, ANSWERS, ERRORS = "chats.jsonl", "responses.jsonl", "response_errors.jsonl"
ANY = "*"  # the endpoint of a batch whose lines may go to any
Item = Mapping[str, Any]


def are_in(endpoint: str) -> bool:
    """Whether a batch for an endpoint may have such requests."""
    return endpoint in (URL, ANY)


def write_chats(source: Path, target: Path, endpoint: str) -> None:
    """Write the file that asks for the same by chats as one for an `endpoint` does by responses, line by line; what
    cannot be read stays as it is, and a body that asks for what cannot be is left empty."""
    called = {URL: CHAT} if endpoint == ANY else {URL: CHAT, CHAT: f"{CHAT} in a batch for {URL}"}  # which is a fault
    _write(target, (_chat_line(line, called) for _, line in read_lines(source, blank=True)))


def _chat_line(line: bytes | InvalidRequest, called: Mapping[str, str]) -> bytes:
    if isinstance(line, InvalidRequest):
        return b"{"  # too long to be kept: no JSON either way
    try:
        item = decode_object(line, 0)
    except InvalidRequest:
        return line.rstrip(b"\r\n")
    url, body = item.get("url"), item.get("body")
    found = {**item, "url": called.get(url, url)} if isinstance(url, str) else dict(item)
    if url == URL and isinstance(body, dict):
        found["body"] = _asked(body)
    return orjson.dumps(found)


def _asked(body: Item) -> Item:
    try:
        return chat_body(body)
    except InvalidRequest:
        return {}


def write_responses(source: Path, chats: Path, target: Path) -> None:
    """Write the lines that a job has written, those of responses that `source` asked for as such; both files have their
    rows in the order of the source."""
    with open(chats, "rb") as lines:
        _write(target, _translated(source, (orjson.loads(line) for line in lines)))


def _translated(source: Path, lines: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    asked = _bodies(source)
    for line in lines:
        url, body = next(((url, body) for name, url, body in asked if name == line["custom_id"]), (None, {}))
        yield orjson.dumps(_response_line(line, body) if url == URL else line)


def _bodies(source: Path) -> Iterator[tuple[str, object, Item]]:
    """The id, the url and the body of each line that has an id and a body."""
    for _, line in read_lines(source):
        with suppress(InvalidRequest):
            item = {} if isinstance(line, InvalidRequest) or not line.strip() else decode_object(line, 0)
            if isinstance(item.get("custom_id"), str) and isinstance(item.get("body"), dict):
                yield item["custom_id"], item.get("url"), item["body"]


def _response_line(line: dict[str, Any], asked: Item) -> dict[str, Any]:
    response = line["response"]
    if response is None:
        return line
    if response["status_code"] == 200:
        return {**line, "response": {**response, "body": response_of(response["body"], asked)}}
    try:
        chat_body(asked)
    except InvalidRequest as error:  # the error is that of the response, not of the chat without a body
        found = {"status_code": error.status, "body": {"error": row_error(error).body()}}
        return {**line, "response": {**response, **found}}
    return line


def response_of(chat: Item, asked: Item) -> dict[str, Any]:
    """The response object of an answer to a chat; `asked` is the body of the request."""
    choice, tag = chat["choices"][0], chat["id"].partition("-")[2]
    head, message = ResponseHead(tag, chat["created"], chat["model"], asked), choice["message"]
    items = [head.item("reasoning", message["reasoning_content"])] if message.get("reasoning_content") else []
    items += [head.item("message", message["content"])] if message["content"] is not None else []
    items += [call_item(call) for call in message.get("tool_calls", ())]
    status = "incomplete" if choice["finish_reason"] == "length" else "completed"
    usage = chat["usage"]
    tokens = {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage["total_tokens"],
    }
    return {**head.body(status, items), "usage": tokens}


def _write(target: Path, lines: Iterable[bytes]) -> None:
    """Write a file that is whole once it is there."""
    part = target.with_name(target.name + ".part")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as out:
        for line in lines:
            out.write(line + b"\n")
        out.flush()
        os.fsync(out.fileno())
    os.replace(part, target)
    sync_folder(target.parent)
