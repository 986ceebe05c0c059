"""Which replica runs which rows: lots handed out as replicas want them, and the recovery of rows when one dies.

A replica takes lots of its own share, in the plan's order, and when that is through from the end of the largest share
that is left: slow ones lose work to fast ones. Lots become smaller towards the end of the job (guided self-scheduling,
Polychronopoulos and Kuck, IEEE Trans. Computers 1987), and are those of a slow replica smaller by its pace, so that all
end at about the same time.

At the end a slow replica still runs rows that it got before anyone could know its pace, or as its batch had room. Those
that are free by then compute the last of them as well, and the first answer counts (backup tasks, Dean and
Ghemawat, OSDI 2004): a row's answer has the same bytes wherever it is computed.

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

from umbel.cluster.paces import Paces
from umbel.errors import UmbelError
from umbel.plan.deal.placement import Share

Ints = NDArray[np.int64]
Place = tuple[int, int]  # number of a lot, and a row's place in it

LOTS = 4  # in which what is left would be through, were they all as large as the next one
PARTS = 4  # lots that what a dead replica leaves is cut into
SLOWER = 1.5  # times that a replica takes as long as a free one before its rows are computed by that one as well
LEAST_DEATHS = 2  # that a row was in, the last of them alone, before it is given up
MOST_DEATHS = 24  # in a row without any answer: more than it takes to single out one row of any number


@dataclass(slots=True)
class DealtLot:
    """Rows that are given out together, and how many replicas have died while running them."""

    rows: Ints
    deaths: int = 0
    seconds: float = 0.0  # expected of them all

    @property
    def row_seconds(self) -> float:
        """Expected of one of them."""
        return self.seconds / len(self.rows)


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
    """A lot, which of its rows are answered, and which another replica has as well (`[rows]`). `relieved`: others have
    answered some of it."""

    replica: int
    lot: DealtLot
    answered: NDArray[np.bool_]
    doubled: NDArray[np.bool_]
    relieved: bool = False


class Deal:
    """The rows of one workload on their way through replicas, which are identified by number, as are lots: from
    `first` on. No lot has fewer than `least` expected seconds where there are more left."""

    def __init__(self, shares: Iterable[Share], least: float = 0.0, first: int = 0):
        self._left = [_Left(share, 0, len(share.stops)) for share in shares]
        self._again: deque[DealtLot] = deque()  # of replicas that died
        self._given: dict[int, _Given] = {}
        self._double: dict[int, tuple[Place, Place]] = {}  # rows that two replicas have, and where
        self._open = sum(len(left.share.rows) for left in self._left)  # rows neither answered nor given up
        self._paces = Paces()
        self._least, self._next, self._deaths = least, first, 0
        self.stolen = 0  # lots that went to another replica than was planned
        self.dealt_again = 0  # rows of replicas that died, which others get
        self.doubled = 0  # rows of slow replicas that others computed as well
        self.unwanted: list[tuple[int, Place]] = []  # replicas and their rows that others answered, for the caller

    @property
    def over(self) -> bool:
        """Whether every row has been answered or given up, and every lot is finished but for those of slow replicas,
        of which others answered rows."""
        return not self._open and all(given.relieved for given in self._given.values())

    @property
    def next_number(self) -> int:
        """The number of the next lot."""
        return self._next

    def give(self, replica: int, *, double: bool = True) -> tuple[int, Ints] | None:
        """The next lot for a replica that wants one: its number and rows. None when there are none, and while it has
        one, or would get one, in which a replica has died: such a lot runs alone, so that it is known what ended it.
        `double`: where none is left and it runs nothing (before that, paces say little), rows of a slower one, which
        runs them too."""
        held = [given.lot for given in self._given.values() if given.replica == replica]
        if any(lot.deaths for lot in held):
            return None
        if self._again:
            return None if held else self._hand(replica, self._again.popleft())
        left, behind = self._source(replica)
        if left is None:
            return self._double_slowest(replica) if double and not held else None
        self.stolen += behind
        total = sum(one.seconds for one in self._left)
        share = total / (LOTS * len(self._left))
        seconds = max(share, self._least) * self._paces.of(replica)
        return self._hand(replica, left.take(seconds, behind=behind))

    def has(self, replica: int, lot: int) -> bool:
        """Whether a replica has a lot: what it says of others is late."""
        return lot in self._given and self._given[lot].replica == replica

    def answered(self, lot: int, place: int) -> int | None:
        """Mark the row at a place of a lot as answered; returns the row, or None where another was first."""
        given = self._given[lot]
        self._paces.add(given.replica, given.lot.row_seconds)
        self._deaths = 0
        if given.answered[place]:
            return None
        row = int(given.lot.rows[place])
        for other in self._double.pop(row, ((lot, place),)):
            if (also := self._given.get(other[0])) is not None:
                also.answered[other[1]] = True
                if other[0] != lot:
                    also.relieved = True
                    self.unwanted.append((also.replica, other))
        self._open -= 1
        return row

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
        numbers = [number for number, given in self._given.items() if given.replica == replica]
        lots = [self._given.pop(number) for number in numbers]
        given_up = [row for given in lots for row in self._take_back(given)]
        self._open -= len(given_up)
        return given_up

    def _source(self, replica: int) -> tuple[_Left | None, bool]:
        """The share that a replica takes from, and whether it is another's, of which it takes the end."""
        own = self._left[replica] if replica < len(self._left) else None
        if own is not None and own.first < own.last:
            return own, False
        most = max(self._left, key=lambda left: left.seconds, default=None)
        return (None if most is None or most.first == most.last else most), True

    def _hand(self, replica: int, lot: DealtLot) -> tuple[int, Ints]:
        number, self._next = self._next, self._next + 1
        self._given[number] = _Given(replica, lot, *(np.zeros(len(lot.rows), bool) for _ in range(2)))
        self._paces.begin(replica)
        return number, lot.rows

    def _double_slowest(self, replica: int) -> tuple[int, Ints] | None:
        """The last rows of the replica that has most left for its pace, so many that both would be through with what is
        left of it at the same time. None where no other is much slower."""
        pace, found = self._paces.of(replica), dict[int, list[tuple[int, _Given]]]()
        for number, given in self._given.items():
            if given.replica != replica and not given.lot.deaths and not (given.answered | given.doubled).all():
                found.setdefault(given.replica, []).append((number, given))
        slow = 0.0, 0.0, list[tuple[int, _Given]]()
        for other, lots in found.items():
            left = sum(given.lot.row_seconds * int((~given.answered & ~given.doubled).sum()) for _, given in lots)
            its = self._paces.at_most(other, sum(given.lot.seconds for _, given in lots))
            if its * SLOWER <= pace and left / its > slow[0]:
                slow = left / its, left * pace / (pace + its), lots
        return self._hand_double(replica, *slow[1:]) if slow[2] else None

    def _hand_double(self, replica: int, seconds: float, lots: list[tuple[int, _Given]]) -> tuple[int, Ints]:
        """Give rows of about so many seconds, the last ones of another's lots, to a replica as well."""
        places, taken = list[Place](), 0.0
        for number, given in reversed(lots):
            for place in np.flatnonzero(~given.answered & ~given.doubled)[::-1].tolist():
                if taken < seconds or not places:
                    places.append((number, place))
                    taken += given.lot.row_seconds
        places.reverse()
        rows = np.array([self._given[number].lot.rows[place] for number, place in places], np.int64)
        number, _ = handed = self._hand(replica, DealtLot(rows, seconds=taken))
        self._given[number].doubled[:] = True
        for i, (row, place) in enumerate(zip(rows.tolist(), places, strict=True)):
            self._given[place[0]].doubled[place[1]] = True
            self._double[row] = place, (number, i)
        self.doubled += len(rows)
        return handed

    def _take_back(self, given: _Given) -> list[int]:
        left, deaths = given.lot.rows[~given.answered], given.lot.deaths + 1
        left = left[np.array([not self._is_elsewhere(row) for row in left.tolist()], bool)]
        if len(given.lot.rows) == 1 and len(left) and deaths >= LEAST_DEATHS:
            return [int(left[0])]
        self.dealt_again += len(left)
        self._again.extend(DealtLot(part, deaths) for part in np.array_split(left, PARTS) if len(part))
        return []

    def _is_elsewhere(self, row: int) -> bool:
        """Whether a row that a lost replica had is still with another one; then that is the only one."""
        held = [(lot, place) for lot, place in self._double.pop(row, ()) if lot in self._given]
        for lot, place in held:
            self._given[lot].doubled[place] = False
        return bool(held)
