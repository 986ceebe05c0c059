"""Columns that grow: what was there stays, in amortised time of what is added."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from umbel.ir.columns import Growable


class _Marks(Growable):
    _FILLS: ClassVar[dict[str, float]] = {"number": -1, "share": 0.5, "flag": True}
    number: np.ndarray
    share: np.ndarray
    flag: np.ndarray

    def add(self, count: int, **values: float | np.ndarray) -> None:
        self._grow(count, **values)


def test_entries_hold_what_was_given_and_else_what_columns_are_filled_with() -> None:
    marks, wanted = _Marks(), list[tuple[int, float, bool]]()
    for count in (1, 0, 300, 2, 70):
        numbers = np.arange(count) + len(wanted)
        marks.add(count, number=numbers, flag=count > 2)
        wanted += [(n, 0.5, count > 2) for n in numbers.tolist()]
    assert marks.used == len(wanted) <= marks.capacity
    columns = (column[: marks.used].tolist() for column in (marks.number, marks.share, marks.flag))
    assert list(zip(*columns, strict=True)) == wanted
    assert (marks.number.dtype, marks.share.dtype, marks.flag.dtype) == (np.int64, np.float64, bool)
    assert (marks.number[marks.used :] == -1).all() and marks.flag[marks.used :].all()


def test_ten_thousand_entries_one_by_one_are_moved_a_few_times() -> None:
    marks, blocks = _Marks(), set[int]()
    kept = []
    for number in range(10_000):
        marks.add(1, number=number)
        if id(marks.number) not in blocks:
            blocks.add(id(marks.number))
            kept.append(marks.number)  # or its id could be used again
    assert len(blocks) < 10 and marks.number[:10_000].tolist() == list(range(10_000))
