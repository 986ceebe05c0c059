"""Reads a whole input into a workload: tokenised in bulk, checked against the model, faults kept aside.

Pure of torch: `umbel plan` uses it too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from umbel.errors import InvalidRequest
from umbel.ir.limits import check_room, check_token_ids
from umbel.ir.params import SamplingParams
from umbel.ir.request import Message, RowError
from umbel.ir.workload import Workload
from umbel.jobs.rows import InputRow, Style, row_error
from umbel.jobs.source import Source


class TextEncoder(Protocol):
    """What is needed of a tokenizer here."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text. Raises InvalidRequest for one that cannot be encoded."""

    def encode_chat(self, conversations: Sequence[Sequence[Message]]) -> list[list[int]]:
        """Token ids of each chat, rendered by the model's template. Raises InvalidRequest for one it cannot render."""


@dataclass(slots=True)
class RowNames:
    """Custom ids and dialects of all rows, packed: a byte a row, plus the text of ids that are not the row number."""

    _styles: bytearray = field(default_factory=bytearray)
    _text: bytearray = field(default_factory=bytearray)
    _ends: list[NDArray[np.int64]] = field(default_factory=list)
    _starts: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self._styles)

    def extend(self, batch: Sequence[InputRow]) -> None:
        """Append the rows of a batch, in order."""
        names = [b"" if row.custom_id is None else row.custom_id.encode() for row in batch]
        base = len(self._text)
        self._text += b"".join(names)
        self._ends.append(np.cumsum([len(name) for name in names], dtype=np.int64) + base)
        self._styles += bytes(row.style for row in batch)

    def custom_id(self, row: int) -> str | None:
        """The id of a row; None where it had none that could be read (ids are never empty)."""
        if self._starts is None:
            self._starts = np.concatenate([np.zeros(1, np.int64), *self._ends])
        start, end = self._starts[row], self._starts[row + 1]
        return self._text[start:end].decode() if end > start else None

    def style(self, row: int) -> Style:
        """The dialect of a row."""
        return Style(self._styles[row])


@dataclass(frozen=True, slots=True)
class Prepared:
    """A job's input: `workload` of the rows to run, `faults` (row, error) of those that cannot, names of all rows.

    `open_ended` counts the rows without `max_tokens`, which may run to the end of the context.
    """

    workload: Workload
    faults: list[tuple[int, RowError]]
    names: RowNames
    open_ended: int

    @property
    def rows(self) -> int:
        """Rows in the input, done or not."""
        return len(self.names)


@dataclass(slots=True)
class _Builder:
    width: int
    context: int
    tokens: list[NDArray[np.int32]] = field(default_factory=list)
    lengths: list[NDArray[np.int64]] = field(default_factory=list)
    params: list[SamplingParams] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    faults: list[tuple[int, RowError]] = field(default_factory=list)

    def take(self, rows: Sequence[InputRow], prompts: Sequence[Sequence[int] | InvalidRequest]) -> None:
        """Append the rows whose prompts can be run, and the errors of the others."""
        kept: list[Sequence[int]] = []
        for row, ids in zip(rows, prompts, strict=True):
            params = row.request.params if row.request is not None else SamplingParams()
            try:
                if isinstance(ids, InvalidRequest):
                    raise ids
                check_room(len(ids), params.min_tokens, self.context)
            except InvalidRequest as error:
                self.faults.append((row.row, row_error(error)))
                continue
            kept.append(ids)
            self.params.append(params)
            self.keys.append(row.row)
        self._append(kept)

    def _append(self, kept: list[Sequence[int]]) -> None:
        lengths = np.fromiter(map(len, kept), np.int64, len(kept))
        tokens = np.fromiter(chain.from_iterable(kept), np.int32, int(lengths.sum()))
        if len(tokens) and int(tokens.max()) >= self.width:  # a tokenizer with more entries than the model has rows
            self._drop_wide(kept)
            return
        self.lengths.append(lengths)
        self.tokens.append(tokens)

    def _drop_wide(self, kept: list[Sequence[int]]) -> None:
        first = len(self.keys) - len(kept)
        fine = [ids for ids in kept if max(ids) < self.width]
        keys, params = self.keys[first:], self.params[first:]
        del self.keys[first:], self.params[first:]
        for ids, key, param in zip(kept, keys, params, strict=True):
            try:
                check_token_ids(ids, self.width)
            except InvalidRequest as error:
                self.faults.append((key, row_error(error)))
            else:
                self.keys.append(key)
                self.params.append(param)
        self._append(fine)

    def workload(self) -> Workload:
        """Everything taken so far."""
        offsets = np.zeros(len(self.keys) + 1, np.int64)
        if self.keys:
            np.cumsum(np.concatenate(self.lengths), out=offsets[1:])
        tokens = np.concatenate(self.tokens) if self.tokens else np.empty(0, np.int32)
        return Workload(tokens, offsets, self.params, np.asarray(self.keys, np.int64))


def prepare(
    source: Source, tokenizer: TextEncoder, width: int, context: int, done: bytes | bytearray = b""
) -> Prepared:
    """Read and tokenise `source` for a model of vocabulary `width` and `context` positions.

    Rows flagged in `done` are read (their ids count) but neither tokenised nor put into the workload. Raises what
    reading raises (EmptyInput, InputError, UsageError), never for a single row.
    """
    names, builder = RowNames(), _Builder(width, context)
    for batch in source.batches():
        names.extend(batch)
        fresh = [row for row in batch if row.row >= len(done) or not done[row.row]]
        builder.faults += [(row.row, row.error) for row in fresh if row.error is not None]
        valid = [row for row in fresh if row.request is not None]
        builder.take(valid, _tokenise(valid, tokenizer))
    open_ended = sum(params.max_tokens is None for params in builder.params)
    return Prepared(builder.workload(), builder.faults, names, open_ended)


def _tokenise(rows: Sequence[InputRow], tokenizer: TextEncoder) -> list[Sequence[int] | InvalidRequest]:
    """Token ids per row, or why there are none; one call per kind of prompt."""
    found: list[Sequence[int] | InvalidRequest] = [()] * len(rows)
    texts: dict[int, str] = {}
    chats: dict[int, Sequence[Message]] = {}
    for i, row in enumerate(rows):
        request = row.request
        if request is None:
            continue
        if isinstance(request.prompt, str):
            texts[i] = request.prompt
        elif request.messages is not None:
            chats[i] = request.messages
        elif request.prompt is not None:
            found[i] = request.prompt
    for part, encode in ((texts, tokenizer.encode), (chats, tokenizer.encode_chat)):
        for i, ids in zip(part, _encode_all(encode, list(part.values())), strict=True):
            found[i] = ids
    return found


def _encode_all(encode: Callable[[Any], list[list[int]]], items: list[Any]) -> Iterator[Sequence[int] | InvalidRequest]:
    if not items:
        return
    try:
        together = encode(items)
    except InvalidRequest as error:
        if len(items) == 1:
            yield error
            return
        half = len(items) // 2  # halving finds the rows at fault in a few calls
        yield from _encode_all(encode, items[:half])
        yield from _encode_all(encode, items[half:])
    else:
        yield from together
