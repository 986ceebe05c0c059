"""Token ids of the prompts of rows, in bulk; of a row that has none, why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from umbel.errors import InvalidRequest
from umbel.ir.chat import Chat
from umbel.ir.contain import as_refusal, concerns_row
from umbel.ir.documents import Span, check_spans
from umbel.ir.limits import MIN_MAX_CHARS, check_chars
from umbel.ir.request import Request
from umbel.jobs.read.branching import BranchEncoder
from umbel.jobs.read.records import InputRow, n_chars_of
from umbel.text.documents import TextParts, encode_parts

Found = list[Sequence[int] | InvalidRequest]


def tokenise(rows: Sequence[InputRow], tokenizer: BranchEncoder, context: int) -> tuple[Found, dict[int, list[Span]]]:
    """The token ids of each row, or the error that it has none; one call per kind of prompt. And where the documents of
    prompts stand that have some, in tokens, by the numbers of rows."""
    found: Found = [()] * len(rows)
    texts: dict[int, str] = {}
    chats: dict[int, Chat] = {}
    apart: dict[int, str] = {}
    for i, row in enumerate(rows):
        request = row.request
        if request is None:
            continue
        prompt = request.prompt
        if isinstance(prompt, str) and len(prompt) <= MIN_MAX_CHARS:
            (apart if request.documents else texts)[i] = prompt
        elif (long := _too_long(request, context)) is not None:
            found[i] = long
        elif isinstance(prompt, str):
            (apart if request.documents else texts)[i] = prompt
        elif request.messages is not None:
            chats[i] = Chat(request.messages, request.chat)
        elif request.prompt is not None:
            found[i] = request.prompt
    for part, encode in ((texts, tokenizer.encode), (chats, tokenizer.encode_chat)):
        for i, ids in zip(part, _encode_all(encode, list(part.values())), strict=True):
            found[i] = ids
    return found, _put_parts(found, apart, rows, tokenizer) if apart else {}


def _put_parts(
    found: Found, apart: dict[int, str], rows: Sequence[InputRow], tokenizer: BranchEncoder
) -> dict[int, list[Span]]:
    """Put the token ids of prompts with documents among those `found`, or why they have none; where documents stand."""
    asked: dict[int, TextParts] = {}
    for i, text in apart.items():
        request = rows[i].request or Request()
        try:
            asked[i] = TextParts(text, check_spans(list(request.documents), len(text), request.params, "character"))
        except InvalidRequest as error:
            found[i] = error
    spans: dict[int, list[Span]] = {}
    encode = partial(encode_parts, tokenizer.encode, tokenizer.encode_alone)
    for i, parts in zip(asked, _encode_all(encode, list(asked.values())), strict=True):
        if isinstance(parts, InvalidRequest):
            found[i] = parts
        else:
            found[i], spans[rows[i].row] = parts
    return spans


def _too_long(request: Request, context: int) -> InvalidRequest | None:
    n_chars = n_chars_of(request)
    if n_chars > MIN_MAX_CHARS and request.params.truncation in (None, "error"):
        try:
            check_chars(n_chars, context)
        except InvalidRequest as error:
            return error
    return None


def _encode_all(encode: Callable[[Any], Sequence[Any]], items: list[Any]) -> Iterator[Any]:
    """What `encode` makes of each, or an InvalidRequest."""
    if not items:
        return
    try:
        together = encode(items)
    except BaseException as error:
        if not concerns_row(error):
            raise
        if len(items) == 1:
            yield as_refusal(error, "tokenising")
            return
        half = len(items) // 2  # halving finds the rows at fault in a few calls
        yield from _encode_all(encode, items[:half])
        yield from _encode_all(encode, items[half:])
    else:
        yield from together
