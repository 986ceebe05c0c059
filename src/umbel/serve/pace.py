"""How long streams wait: for their first token, and from one token to the next."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

KEPT = 4_096  # of each kind
SHOWN = (50, 90, 99)
LATELY = 200  # waits


@dataclass(slots=True)
class Pace:
    """The last waits, in seconds."""

    clock: Callable[[], float] = time.perf_counter
    first: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    between: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))

    def note(self, waits: dict[tuple[int, int], float], begun: float, place: tuple[int, int]) -> None:
        """Tokens of a stream have come: the sample at `place` of a request that began at `begun`; `waits` has when each
        had its last ones."""
        now, before = self.clock(), waits.get(place)
        waits[place] = now
        if before is None:
            self.first.append(now - begun)
        else:
            self.between.append(now - before)

    def lately(self) -> float:
        """The 99th percentile of the last LATELY waits between tokens; 0 where there was none."""
        last = list(self.between)[-LATELY:]
        return _percentiles(last)[-1][1] if last else 0.0

    def percentiles(self) -> dict[str, list[tuple[int, float]]]:
        """The percentiles of both kinds of waits, empty where there was none."""
        return {"first": _percentiles(tuple(self.first)), "between": _percentiles(tuple(self.between))}


def _percentiles(values: Sequence[float]) -> list[tuple[int, float]]:
    """The nearest ranks of some values."""
    ranked = sorted(values)
    return [(share, ranked[max(0, -(-len(ranked) * share // 100) - 1)]) for share in SHOWN] if ranked else []
