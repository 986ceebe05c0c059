"""Which replica runs which rows: bundles handed out as replicas become free, and the recovery of rows when one dies.

Rows without an answer go back in a few smaller bundles, for any free replica: the others take most of them over, and a
row that ends every process soon stands alone and is given up. Each death makes a bundle smaller or ends a row, so the
procedure always terminates.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umbel.errors import UmbelError

Ints = NDArray[np.int64]

PARTS = 4  # bundles that what a dead replica leaves is cut into
LEAST_DEATHS = 2  # that a row was in, the last of them alone, before it is given up
MOST_DEATHS = 24  # in a row without any answer: more than it takes to single out one row of any number


@dataclass(slots=True)
class Bundle:
    """Rows that are run together, and how many replicas have died while running them."""

    rows: Ints
    deaths: int = 0


@dataclass(slots=True)
class _Given:
    bundle: Bundle
    answered: NDArray[np.bool_]


class Deal:
    """The rows of one workload on their way through replicas, which are identified by number."""

    def __init__(self, bundles: Iterable[Ints]):
        self._waiting = deque(Bundle(rows) for rows in bundles if len(rows))
        self._given: dict[int, _Given] = {}
        self._deaths = 0

    @property
    def over(self) -> bool:
        """Whether every row has been answered or given up."""
        return not self._waiting and not self._given

    def give(self, replica: int) -> Ints | None:
        """The next rows for a replica that has none; None when there are none to hand out."""
        if not self._waiting or replica in self._given:
            return None
        bundle = self._waiting.popleft()
        self._given[replica] = _Given(bundle, np.zeros(len(bundle.rows), bool))
        return bundle.rows

    def answered(self, replica: int, place: int) -> int:
        """Mark the row at a place of a replica's bundle as answered; returns the row."""
        given = self._given[replica]
        given.answered[place] = True
        self._deaths = 0
        return int(given.bundle.rows[place])

    def done(self, replica: int) -> None:
        """Mark a replica's bundle as finished."""
        del self._given[replica]

    def died(self, replica: int, how: str) -> list[int]:
        """Take back the rows of a replica that is lost, `how` as in "ended with signal 9"; returns the rows that are
        given up.

        Raises UmbelError when replicas keep dying without an answer in between.
        """
        self._deaths += 1
        if self._deaths >= MOST_DEATHS:
            raise UmbelError(
                f"{self._deaths} replicas were lost one after the other without an answer: the last {how}; what is "
                "finished is kept: mend what ends them (memory?), or lower --data-parallel-size, and run the same "
                "command again"
            )
        if replica not in self._given:
            return []
        given = self._given.pop(replica)
        left, deaths = given.bundle.rows[~given.answered], given.bundle.deaths + 1
        if len(given.bundle.rows) == 1 and len(left) and deaths >= LEAST_DEATHS:
            return [int(left[0])]
        self._waiting.extend(Bundle(part, deaths) for part in np.array_split(left, PARTS) if len(part))
        return []
