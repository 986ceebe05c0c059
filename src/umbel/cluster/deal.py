"""Which replica runs which rows: lots handed out as replicas want them, and the recovery of rows when one dies.

A replica takes lots of its own share, in the plan's order, and when that is through from the end of the largest share
that is left: slow ones lose work to fast ones. Lots become smaller towards the end of the job (guided self-scheduling,
Polychronopoulos and Kuck, IEEE Trans. Computers 1987), and are those of a slow replica smaller by its pace, so that all
end at about the same time.

Rows without an answer of one that dies go back in a few smaller lots, for any replica that has nothing else: a row that
ends every process soon stands alone and is given up. Each death makes a lot smaller or ends a row, so the procedure
always terminates.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umbel.errors import UmbelError
from umbel.plan.deal.placement import Share

Ints = NDArray[np.int64]

LOTS = 4  # in which what is left would be through, were they all as large as the next one
PARTS = 4  # lots that what a dead replica leaves is cut into
LEAST_DEATHS = 2  # that a row was in, the last of them alone, before it is given up
MOST_DEATHS = 24  # in a row without any answer: more than it takes to single out one row of any number


@dataclass(slots=True)
class DealtLot:
    """Rows that are given out together, and how many replicas have died while running them."""

    rows: Ints
    deaths: int = 0
    seconds: float = 0.0  # expected of them all


@dataclass(slots=True)
class _Left:
    """What is left of a share: its pieces from `first` to before `last`."""

    share: Share
    first: int
    last: int

    @property
    def seconds(self) -> float:
        return float(self.share.seconds[self.first : self.last].sum())

    def take(self, seconds: float, *, behind: bool) -> DealtLot:
        """Remove rows of about so many seconds, a piece at least, from the front or from `behind`."""
        taken = self.share.seconds[self.first : self.last]
        count = 1 + int(np.searchsorted(np.cumsum(taken[::-1] if behind else taken), seconds * (1 - 1e-9)))
        count = min(count, self.last - self.first)
        first = self.last - count if behind else self.first
        self.first, self.last = (self.first, first) if behind else (first + count, self.last)
        stops = self.share.stops
        rows = self.share.rows[stops[first - 1] if first else 0 : stops[first + count - 1]]
        return DealtLot(rows, seconds=float(self.share.seconds[first : first + count].sum()))


@dataclass(slots=True)
class _Given:
    replica: int
    lot: DealtLot
    answered: NDArray[np.bool_]


class Paces:
    """How fast replicas are beside the fastest, by the expected seconds of the rows that each has answered since its
    first one: without a clock, as all work all the time."""

    def __init__(self) -> None:
        self._done: dict[int, float] = {}
        self._before: dict[int, dict[int, float]] = {}  # what others had done when one began

    def add(self, replica: int, seconds: float) -> None:
        """A row was answered."""
        if replica not in self._done:
            self._before[replica] = dict(self._done)
        self._done[replica] = self._done.get(replica, 0.0) + seconds

    def of(self, replica: int) -> float:
        """Above 0, at most 1; 1 of one that has answered nothing."""
        if replica not in self._done:
            return 1.0
        before = self._before[replica]
        most = max(done - before.get(other, 0.0) for other, done in self._done.items())
        return self._done[replica] / most if most > 0 else 1.0

    def forget(self, replica: int) -> None:
        """It was lost: what comes in its place starts without a past."""
        self._done.pop(replica, None)
        self._before.pop(replica, None)


class Deal:
    """The rows of one workload on their way through replicas, which are identified by number, as are lots: from
    `first` on. No lot has fewer than `least` expected seconds where there are more left."""

    def __init__(self, shares: Iterable[Share], least: float = 0.0, first: int = 0):
        self._left = [_Left(share, 0, len(share.stops)) for share in shares]
        self._again: deque[DealtLot] = deque()  # of replicas that died
        self._given: dict[int, _Given] = {}
        self._paces = Paces()
        self._least, self._next, self._deaths = least, first, 0
        self.stolen = 0  # lots that went to another replica than was planned
        self.dealt_again = 0  # rows of replicas that died, which others get

    @property
    def over(self) -> bool:
        """Whether every row has been answered or given up."""
        return not self._given and not self._again and all(left.first == left.last for left in self._left)

    @property
    def next_number(self) -> int:
        """The number of the next lot."""
        return self._next

    def give(self, replica: int) -> tuple[int, Ints] | None:
        """The next lot for a replica that wants one: its number and rows. None when there are none, and while it has
        one, or would get one, in which a replica has died: such a lot runs alone, so that it is known what ended it."""
        held = [given.lot for given in self._given.values() if given.replica == replica]
        if any(lot.deaths for lot in held):
            return None
        if self._again:
            return None if held else self._hand(replica, self._again.popleft())
        left, behind = self._source(replica)
        if left is None:
            return None
        self.stolen += behind
        total = sum(one.seconds for one in self._left)
        share = total / (LOTS * len(self._left))
        seconds = max(share, self._least) * self._paces.of(replica)
        return self._hand(replica, left.take(seconds, behind=behind))

    def has(self, replica: int, lot: int) -> bool:
        """Whether a replica has a lot: what it says of others is late."""
        return lot in self._given and self._given[lot].replica == replica

    def answered(self, lot: int, place: int) -> int:
        """Mark the row at a place of a lot as answered; returns the row."""
        given = self._given[lot]
        given.answered[place] = True
        self._paces.add(given.replica, given.lot.seconds / len(given.lot.rows))
        self._deaths = 0
        return int(given.lot.rows[place])

    def done(self, lot: int) -> None:
        """Mark a lot as finished."""
        del self._given[lot]

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
        self._paces.forget(replica)
        lost = [number for number, given in self._given.items() if given.replica == replica]
        return [row for number in lost for row in self._take_back(self._given.pop(number))]

    def _source(self, replica: int) -> tuple[_Left | None, bool]:
        """The share that a replica takes from, and whether it is another's, of which it takes the end."""
        own = self._left[replica] if replica < len(self._left) else None
        if own is not None and own.first < own.last:
            return own, False
        most = max(self._left, key=lambda left: left.seconds, default=None)
        return (None if most is None or most.first == most.last else most), True

    def _hand(self, replica: int, lot: DealtLot) -> tuple[int, Ints]:
        number, self._next = self._next, self._next + 1
        self._given[number] = _Given(replica, lot, np.zeros(len(lot.rows), bool))
        return number, lot.rows

    def _take_back(self, given: _Given) -> list[int]:
        left, deaths = given.lot.rows[~given.answered], given.lot.deaths + 1
        if len(given.lot.rows) == 1 and len(left) and deaths >= LEAST_DEATHS:
            return [int(left[0])]
        self.dealt_again += len(left)
        self._again.extend(DealtLot(part, deaths) for part in np.array_split(left, PARTS) if len(part))
        return []
