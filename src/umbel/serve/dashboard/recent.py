"""What a server did in the last minutes: a sample a second while a page shows them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from umbel.ir.report import Stats
from umbel.serve.dashboard.engine_view import EngineView
from umbel.serve.pace import Pace

KEPT = 120  # samples


@dataclass(frozen=True, slots=True)
class Sample:
    """A moment: seconds on a clock that never goes back, the engine's totals, what it was doing, and how long streams
    waited between tokens lately (seconds, the 99th percentile)."""

    at: float
    stats: Stats
    view: EngineView
    wait: float = 0.0


@dataclass(frozen=True, slots=True)
class Rates:
    """Tokens a second between two samples, at so many seconds before the last one (negative)."""

    at: float
    prompt: float
    written: float


@dataclass(slots=True)
class RecentSamples:
    """The last samples; `stats` gives totals, which may be read at any time."""

    stats: Callable[[], Stats]
    pace: Pace = field(default_factory=Pace)
    clock: Callable[[], float] = time.monotonic
    _samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=KEPT))

    def take(self, view: EngineView) -> None:
        """Take a sample, unless the last one is of just before."""
        now = self.clock()
        if not self._samples or now - self._samples[-1].at > 0.5:
            self._samples.append(Sample(now, self.stats(), view, self.pace.lately()))

    @property
    def last(self) -> Sample:
        """The last sample."""
        return self._samples[-1] if self._samples else Sample(self.clock(), self.stats(), EngineView())

    @property
    def samples(self) -> Sequence[Sample]:
        """All samples, the oldest first."""
        return tuple(self._samples)

    def rates(self) -> list[Rates]:
        """Tokens a second, sample after sample."""
        found, end = list[Rates](), self.last.at
        for one, other in zip(self.samples, self.samples[1:], strict=False):
            seconds = other.at - one.at
            prompt = other.stats.computed_prompt_tokens - one.stats.computed_prompt_tokens
            written = other.stats.output_tokens - one.stats.output_tokens
            found.append(Rates(other.at - end, max(0, prompt) / seconds, max(0, written) / seconds))
        return found
