"""What a reader hands on for each input row, and what it was told and found while reading."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import IntEnum

from umbel.errors import InvalidRequest
from umbel.ir.params import SamplingParams
from umbel.ir.request import Request, RowError


class Style(IntEnum):
    """The dialect a row came in and its answer goes out in."""

    PLAIN = 0
    CHAT = 1
    COMPLETION = 2


@dataclass(frozen=True, slots=True)
class InputRow:
    """One row of the input: `request`, or `error` when it cannot be run; never both, never neither.

    `row` counts rows from 0 (blank lines are no rows), `line` counts physical lines (of a table: its rows) from 1.
    `custom_id` is None only when the row has none that can be read; it is then null in the output too.
    """

    row: int
    line: int
    custom_id: str | None
    style: Style
    request: Request | None = None
    error: RowError | None = None
    explicit_id: bool = False


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read: sampling `defaults` for fields that a row does not set, `template` for prompts made from columns.

    `chat` puts each templated prompt into a user message. `strict` refuses unknown fields. `width` is the model's
    vocabulary width and `models` the names it answers to; None leaves those checks out.
    """

    defaults: SamplingParams = field(default_factory=SamplingParams)
    template: str | None = None
    chat: bool = False
    strict: bool = False
    width: int | None = None
    models: frozenset[str] | None = None


@dataclass(slots=True)
class ReadNotes:
    """What a reader noticed on its way that is no error: rows per unknown field name (at most 100 names are kept)."""

    ignored_fields: Counter[str] = field(default_factory=Counter)

    def ignored(self, names: list[str]) -> None:
        """Count fields that nothing read."""
        for name in names:
            if name in self.ignored_fields or len(self.ignored_fields) < 100:
                self.ignored_fields[name] += 1


def row_error(error: InvalidRequest) -> RowError:
    """The exception as a record."""
    return RowError(error.code, error.message, error.param, status=error.status)
