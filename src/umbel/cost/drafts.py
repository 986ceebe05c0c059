"""What proposed tokens gain: how many there are at which chance of acceptance, and how many of them to check.

A step that checks more tokens takes longer and gives more: the best number gives the most tokens per second. Gains fall
as more samples run, since a step with many rows has no idle arithmetic left to check with; Scylla (arXiv 2505.07858)
finds the same in measured decoding speeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umbel.cost.load import Load

Floats = NDArray[np.float64]
Seconds = Callable[[Load], Floats]  # of each step

LEVELS = 20  # of chances, the first of 0 to 5 %
LEAST_GAIN = 1.01  # below, nothing is checked: prices are not known better than that


@dataclass(frozen=True, slots=True)
class Decodes:
    """A step in which `samples` decode with `context` tokens before them each, beside `others` tokens of prompts."""

    samples: int
    context: float
    others: int = 0

    def load(self, drafts: Floats) -> Load:
        """The step with each of these numbers of proposed tokens (`[entries]`)."""
        tokens, read = self.samples + drafts, np.full_like(drafts, self.samples * self.context)
        return Load(np.ones_like(drafts), tokens + self.others, tokens, tokens * self.context, read)


@dataclass(frozen=True, slots=True)
class Bargain:
    """Per sample and step: tokens `drafted`, of which `accepted` are expected to come true, and how many times more
    tokens per second that gives (1: nothing is drafted)."""

    drafted: float = 0.0
    accepted: float = 0.0
    gain: float = 1.0


@dataclass(frozen=True, slots=True)
class Offers:
    """Proposed tokens by the chance that they come true with all before them (`counts`, `[LEVELS]`), and how often
    samples were `asked` for."""

    asked: float
    counts: Floats

    @classmethod
    def none(cls) -> Offers:
        """Nothing is known."""
        return cls(0.0, np.zeros(LEVELS))

    def joined(self, other: Offers) -> Offers:
        """Both together."""
        return Offers(self.asked + other.asked, self.counts + other.counts)

    def scaled(self, most: float) -> Offers:
        """The same, with the weight of at most so many samples asked for."""
        factor = min(1.0, most / max(self.asked, 1.0))
        return Offers(self.asked * factor, self.counts * factor)

    def best(self, step: Decodes, seconds: Seconds) -> Bargain:
        """How many tokens to check of what is on offer on average, the likely ones first."""
        each = self.counts[::-1] / max(self.asked, 1.0)
        drafted, accepted = (np.append(0.0, np.cumsum(part)) for part in (each, each * _MIDDLES[::-1]))
        speed = (1 + accepted) / seconds(step.load(drafted * step.samples))
        best = int(speed.argmax())
        gain = float(speed[best] / speed[0])
        return Bargain(float(drafted[best]), float(accepted[best]), gain) if gain >= LEAST_GAIN else Bargain()

    def break_even(self, step: Decodes, seconds: Seconds, most: int) -> int:
        """The most samples that can run for proposals to pay, up to `most`; 0 where they never do."""

        def pays(samples: int) -> bool:
            return self.best(Decodes(samples, step.context, step.others), seconds).gain > 1

        low, high = 0, 1
        while high <= most and pays(high):
            low, high = high, 2 * high
        high = min(high, most + 1)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if pays(middle) else (low, middle)
        return low

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        return {"asked": self.asked, "counts": self.counts.tolist()}

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> Offers:
        """What `to_json` wrote; raises ValueError for anything else."""
        asked, counts = float(values["asked"]), np.array(values["counts"], float)
        if counts.shape != (LEVELS,) or not (np.isfinite(counts) & (counts >= 0)).all() or not 0 <= asked < np.inf:
            raise ValueError(f"offers are a number and {LEVELS} counts, finite and not negative")
        return cls(asked, counts)


_MIDDLES = (np.arange(LEVELS) + 0.5) / LEVELS


def levels_of(chances: Floats) -> NDArray[np.int64]:
    """The level of each chance."""
    return np.minimum((chances * LEVELS).astype(np.int64), LEVELS - 1)
