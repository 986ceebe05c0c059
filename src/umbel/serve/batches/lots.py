"""The workloads of a batch as they are handed to the session: in the order of their plan, a few rows at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from umbel.ir.params import SamplingParams
from umbel.ir.plan import Plan
from umbel.ir.randomness import streams
from umbel.ir.request import Output
from umbel.ir.resumable import Resumable
from umbel.ir.selection import select_rows
from umbel.ir.workload import Workload


@dataclass(slots=True)
class HandedLot:
    """Workload `number` and its plan. `begun`: what rows had when they were taken out earlier; `again`: rows that were
    running when the engine failed, which are run one by one."""

    number: int
    workload: Workload
    plan: Plan
    begun: dict[int, Resumable]
    again: list[int] = field(default_factory=list)
    left: int = 0
    _at: int = 0
    _order: list[int] = field(default_factory=list)
    _followers: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        same = self.plan.same_as.tolist()
        self._order = [row for row in self.plan.order.tolist() if same[row] == row]
        for row, first in enumerate(same):
            if first != row:
                self._followers[first].append(row)
        self.left = len(self._order)

    @property
    def waits(self) -> bool:
        """Whether rows have not been handed out, or must be again."""
        return self._at < len(self._order) or bool(self.again)

    def next(self, count: int) -> list[int]:
        """Up to `count` more rows, fewer where one has to be alone."""
        if self.again:
            return [self.again.pop()]
        rows = list[int]()
        while self._at < len(self._order) and len(rows) < count:
            row = self._order[self._at]
            if row in self.begun and rows:
                break  # it is taken up alone
            self._at += 1
            rows.append(row)
            if row in self.begun:
                break
        return rows

    def part(self, rows: list[int]) -> Workload:
        """Some of the rows as a workload of their own."""
        return select_rows(self.workload, np.asarray(rows, np.int64))

    def taken_up(self, row: int, record: Resumable, seed: int) -> Resumable:
        """A record of a row with its prompt and its draws, to go on from; `seed` is that of rows without their own."""
        load, params = self.workload, self.workload.params[row]
        scope = 0 if load.scope is None else load.scope.item(row)
        stream = stream_of(params, load.noise_keys.item(row), seed)
        prompt = tuple(load.prompt(row).tolist())
        return replace(record, prompt_token_ids=prompt, stream=stream, scope=scope)

    def answers(self, output: Output) -> Iterator[tuple[int, Output]]:
        """The answer of a row, and the same for each row that is like it."""
        self.left -= 1
        yield self.number, output
        for row in self._followers.pop(output.row, ()):
            yield self.number, replace(output, row=row)

    def expected_tokens(self) -> float:
        """Tokens that rows without an answer are expected to write."""
        share = self.left / max(1, len(self._order))
        each = np.array([params.n for params in self.workload.params], np.int64)
        return float((self.plan.lengths * each).sum()) * share


def stream_of(params: SamplingParams, key: int, seed: int) -> int:
    """What keys the draws of a row."""
    own = params.seed is not None
    seeds = np.array([params.seed if own else seed], np.int64)
    return int(streams(seeds, np.array([key], np.int64), np.array([own])).item())


def with_tokens(records: Mapping[tuple[int, int], Resumable]) -> dict[tuple[int, int], Resumable]:
    """Those of rows that have written something, which alone are worth keeping."""
    return {place: one for place, one in records.items() if one.finished or any(open_.token_ids for open_ in one.open)}
