"""What the rows of a window are called, and which columns come back on them, packed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from umbel.ir.branches import Branches
from umbel.jobs.read.records import InputRow, RowHead, Style
from umbel.text.answers.base import NO_TYPES, Types, types_of


@dataclass(slots=True)
class PackedTexts:
    """Texts in a row behind one another."""

    _text: bytearray = field(default_factory=bytearray)
    _ends: list[NDArray[np.int64]] = field(default_factory=list)
    _starts: list[int] = field(default_factory=list)

    def extend(self, texts: Sequence[bytes]) -> None:
        """Append some."""
        base = len(self._text)
        self._text += b"".join(texts)
        self._ends.append(np.cumsum([len(text) for text in texts], dtype=np.int64) + base)

    def at(self, i: int) -> bytes:
        """The i-th."""
        if len(self._starts) <= i + 1:
            self._starts = np.concatenate([np.zeros(1, np.int64), *self._ends]).tolist()
        return bytes(self._text[self._starts[i] : self._starts[i + 1]])


@dataclass(slots=True)
class RowNames:
    """Custom ids, dialects and columns of rows, packed: a byte a row, plus their texts.

    `branches`: by row of the input that has continuations scored, what it asks for, and the place of the first of the
    rows that it has here, one for each continuation.
    """

    branches: dict[int, tuple[Branches, int]] = field(default_factory=dict)
    _cuts: dict[int, int] = field(default_factory=dict)  # of few rows: those whose prompts were too long
    _types: dict[int, Types] = field(default_factory=dict)  # of rows whose answers may call tools
    _styles: bytearray = field(default_factory=bytearray)
    _ids: PackedTexts = field(default_factory=PackedTexts)
    _columns: PackedTexts = field(default_factory=PackedTexts)

    def __len__(self) -> int:
        return len(self._styles)

    @property
    def any_echoes(self) -> bool:
        """Whether an answer has its prompt in it."""
        return Style.ECHO in self._styles

    def note(self, branches: Mapping[int, Branches], batch: Sequence[InputRow]) -> None:
        """The rows of a batch, which are appended next, are those of some branches."""
        for place, row in enumerate(batch if branches else (), len(self)):
            if row.row in branches:
                self.branches.setdefault(row.row, (branches[row.row], place))

    def extend(self, batch: Sequence[InputRow]) -> None:
        """Append the rows of a batch, in order."""
        self._cuts |= {place: row.cut for place, row in enumerate(batch, len(self)) if row.cut}
        self._types |= {
            place: types_of(row.request.chat.tools or ())
            for place, row in enumerate(batch, len(self))
            if row.style.may_call and row.request is not None
        }
        self._ids.extend([b"" if row.custom_id is None else row.custom_id.encode() for row in batch])
        self._columns.extend([row.columns for row in batch])
        self._styles += bytes(row.style for row in batch)

    def head(self, row: int, i: int) -> RowHead:
        """The head of the i-th row, which is number `row` of the input (ids are never empty)."""
        name = self._ids.at(i).decode() or None
        return RowHead(
            row, name, self.style(i), self._columns.at(i), self._cuts.get(i, 0), self._types.get(i, NO_TYPES)
        )

    def style(self, i: int) -> Style:
        """The dialect of the i-th row."""
        return Style(self._styles[i])
