"""How fast replicas are beside each other, by what they answer."""

from __future__ import annotations


class Paces:
    """How fast replicas are beside the fastest, by the expected seconds of the rows that each has answered since its
    first one: without a clock, as all work all the time."""

    def __init__(self) -> None:
        self._done: dict[int, float] = {}
        self._before: dict[int, dict[int, float]] = {}  # what others had done when one gave its first answer
        self._began: dict[int, dict[int, float]] = {}  # and when it got its first rows

    def begin(self, replica: int) -> None:
        """It has rows to run."""
        self._began.setdefault(replica, dict(self._done))

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

    def at_most(self, replica: int, held: float) -> float:
        """Its pace, or that of one that has answered nothing: less than if it were through with what it has, rows of
        so many expected `held` seconds."""
        if replica in self._done:
            return self.of(replica)
        before = self._began.get(replica, {})
        most = max((done - before.get(other, 0.0) for other, done in self._done.items()), default=0.0)
        return min(held / most, 1.0) if most > 0 else 1.0

    def forget(self, replica: int) -> None:
        """It was lost: what comes in its place starts without a past."""
        self._done.pop(replica, None)
        self._before.pop(replica, None)
        self._began.pop(replica, None)
