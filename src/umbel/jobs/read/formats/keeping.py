"""What comes back of a row beside its answer: its columns, or the fields of a JSON line that nothing read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from umbel.errors import UsageError, nearest
from umbel.ir import body as wire
from umbel.ir.chat import CHAT_FIELDS
from umbel.ir.limits import shown
from umbel.jobs.read.records import ANSWER_NAMES, ReadOptions

PREFIX = "input_"
FILE = "file"  # the column that says which of several files a row is from
_MEMO_ENTRIES = 4_096
_PROMPTS = frozenset({"prompt", "messages"})
_CHATS = _PROMPTS | CHAT_FIELDS | {"tool_choice"}  # names of data where a template makes the prompts

Names = tuple[tuple[str, str], ...]
"""Columns that come back, each with its name there."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """Which columns of a row come back, and under which names.

    `options`: keep, id_column and include_prompt.
    `table`: all columns of a table come back, of a JSON line those that are not read.
    `data`: columns that a prompt template uses.
    `templated`: prompts are made by a template, so that a column called prompt is no prompt.
    `head`: what comes back on every row before its columns, as `file_column` gives it.
    """

    options: ReadOptions
    table: bool
    data: frozenset[str] = frozenset()
    templated: bool = False
    head: bytes = b""
    _memo: dict[tuple[str, ...], Names] = field(default_factory=dict)

    def check(self, columns: Iterable[str]) -> None:
        """Raise UsageError when a column that was asked for by name is not among those of a table."""
        known = list(columns)
        kept = [name for name in self.options.keep or () if name != FILE or not self.head]
        for option, asked in (("--keep", kept), ("--id", [self.options.id_column])):
            for name in asked:
                if name is not None and name not in known:
                    there = ", ".join([f"{one:.60}" for one in known[:20]] + ["..."] * (len(known) > 20))
                    raise UsageError(f"{option}: no column {shown(name)}{nearest(name, known)}; the input has {there}")

    def names(self, given: Iterable[str]) -> Names:
        """Of columns named so, those that come back with their names there: their own, unless it is one of an answer's
        or of another column's, which gets `input_` in front."""
        given = tuple(given)
        found = self._memo.get(given)
        if found is None:
            found = tuple(renamed(filter(self._comes_back, given), self._taken()))
            if len(self._memo) >= _MEMO_ENTRIES:
                self._memo.clear()
            self._memo[given] = found
        return found

    def pack(self, cells: Mapping[str, Any], prompt: Mapping[str, Any] | None = None) -> bytes:
        """The columns of a row as the inside of a JSON object, with those of `prompt` that are not there already."""
        names = self.names(cells)
        if not names and not prompt:
            return self.head
        kept = {shown_as: cells[name] for name, shown_as in names}
        inside = _inside(kept if prompt is None else kept | dict(prompt))
        return b"".join((self.head, b",", inside)) if self.head else inside

    def _comes_back(self, name: str) -> bool:
        if name == "custom_id" and self.options.id_column is None:
            return False  # it heads the row
        if self.options.keep is not None:
            return name in self.options.keep
        return self.table or name in self.data or name not in self._read()

    def _read(self) -> frozenset[str]:
        if self.templated:
            return (wire.EFFECTIVE_FIELDS | wire.PLAIN.own) - _CHATS
        return wire.EFFECTIVE_FIELDS | wire.PLAIN.own | {"model"}

    def _taken(self) -> frozenset[str]:
        own = ANSWER_NAMES | {FILE} if self.head else ANSWER_NAMES
        return own | _PROMPTS if self.options.include_prompt and self.templated else own


def file_column(name: str | None, keep: tuple[str, ...] | None) -> bytes:
    """The name of a file as it comes back on its rows, as the inside of a JSON object; empty where `keep` leaves it
    out, or where there is one file."""
    return b"" if name is None or (keep is not None and FILE not in keep) else _inside({FILE: name})


def renamed(names: Iterable[str], taken: frozenset[str]) -> Iterable[tuple[str, str]]:
    """Columns, each with its name beside columns that are called as in `taken`."""
    names = list(names)
    used = {name for name in names if name not in taken}
    for name in names:
        other = name
        if name in taken:
            while other in taken or other in used:
                other = PREFIX + other
            used.add(other)
        yield name, other


def _inside(kept: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(kept)[1:-1]
    except TypeError:  # a whole number beyond 64 bits
        return json.dumps(kept, ensure_ascii=False, separators=(",", ":"), default=str).encode()[1:-1]
