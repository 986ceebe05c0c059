"""What a drafter's tokens come to by their place in a draft: how many to ask for, and how much faster that is.

Scylla (arXiv 2505.07858) predicts the length that is accepted, and from it the speed, by laws fitted to few
measurements. The record here is kept by drafter and template, and its law is a line: the log-odds that a token comes
true once those before it have, over the logarithm of its place. Where a place was measured often, the measurement
counts, and the line elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umbel.cost.drafts import LEAST_GAIN, Bargain, Decodes, Seconds

Floats = NDArray[np.float64]

PLACES = 16  # of a draft that are told apart
LEAST = 50.0  # first tokens to try before a law says anything
TRUST = 16.0  # tokens of a place that the line counts for beside those that were measured there
WEIGHTS = np.diag([0.05, 0.5])  # of the line's two numbers, which are near (0, 0) where nothing speaks for others
_LOGS = np.log(np.arange(1, PLACES + 1))


@dataclass(frozen=True, slots=True)
class DraftLaw:
    """What was measured of a drafter: how many samples were `asked` for; of their drafts, how many had a token at each
    place that was `checked` (`[PLACES]`); how many of these stood behind ones that came true (`tried`), and came true
    themselves (`true`); and what proposing took: `seconds` for `rounds`, the places of the longest draft of each step.
    What a price left unchecked is not known."""

    asked: float
    checked: Floats
    tried: Floats
    true: Floats
    rounds: float = 0.0
    seconds: float = 0.0

    @classmethod
    def none(cls) -> DraftLaw:
        """Nothing was measured."""
        return cls(0.0, *np.zeros((3, PLACES)))

    @property
    def is_known(self) -> bool:
        """Whether enough was measured."""
        return bool(self.tried[0] >= LEAST)

    @property
    def line(self) -> tuple[float, float]:
        """The log-odds at the first place, and what they change by with the logarithm of the place: the likeliest."""
        slopes, found = np.stack([np.ones(PLACES), _LOGS]), np.zeros(2)
        for _ in range(40):  # Newton's method; the sum that it climbs is concave
            odds = 1 / (1 + np.exp(-found @ slopes))
            uphill = slopes @ (self.true - self.tried * odds) - WEIGHTS @ found
            curved = (slopes * (self.tried * odds * (1 - odds))) @ slopes.T + WEIGHTS
            found = np.clip(found + np.clip(np.linalg.solve(curved, uphill), -2, 2), -12, 12)
        return float(found[0]), float(found[1])

    @property
    def chances(self) -> Floats:
        """How likely a token at each place comes true once those before it have (`[PLACES]`)."""
        first, slope = self.line
        fitted = 1 / (1 + np.exp(-(first + slope * _LOGS)))
        return np.asarray((self.true + TRUST * fitted) / (self.tried + TRUST))

    @property
    def lengths(self) -> Floats:
        """How likely a token is checked at each place (`[PLACES]`)."""
        return np.asarray(self.checked / max(self.asked, 1.0))

    def best(self, step: Decodes, seconds: Seconds) -> tuple[int, Bargain]:
        """How many tokens to ask for in such a step, 0 where none pays, and what comes of it."""
        drafted = np.append(0.0, np.cumsum(self.lengths))
        accepted = np.append(0.0, np.cumsum(self.lengths * np.cumprod(self.chances)))
        speed = (1 + accepted) / (seconds(step.load(drafted * step.samples)) + self._proposing())
        most = int(speed.argmax())
        gain = float(speed[most] / speed[0])
        if gain < LEAST_GAIN:
            return 0, Bargain()
        return most, Bargain(float(drafted[most]), float(accepted[most]), gain)

    def needed(self, step: Decodes, seconds: Seconds) -> float:
        """The least chance of one proposed token with which asking for it pays in such a step, 1 or more: none does."""
        share = max(float(self.lengths[0]), 1e-9)
        times = seconds(step.load(np.array([0.0, share * step.samples])))
        return float(((times[1] + self._proposing()[1]) / times[0] * LEAST_GAIN - 1) / share)

    def joined(self, other: DraftLaw) -> DraftLaw:
        """Both together."""
        pairs = zip(self._numbers(), other._numbers(), strict=True)
        return DraftLaw(*[one + more for one, more in pairs])

    def scaled(self, factor: float) -> DraftLaw:
        """The same with another weight."""
        return DraftLaw(*[one * factor for one in self._numbers()])

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        places = {"checked": self.checked.tolist(), "tried": self.tried.tolist(), "true": self.true.tolist()}
        return {"asked": self.asked, **places, "rounds": self.rounds, "seconds": self.seconds}

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> DraftLaw:
        """What `to_json` wrote; raises ValueError for anything else."""
        alone = np.array([values["asked"], values["rounds"], values["seconds"]], float)
        places = np.array([values["checked"], values["tried"], values["true"]], float)
        every = np.append(alone, places)
        sound = places.shape == (3, PLACES) and bool((np.isfinite(every) & (every >= 0)).all())
        if not sound or (places[2] > places[1]).any():
            raise ValueError(f"a law has counts for {PLACES} places, finite, not negative, no more true than tried")
        return cls(*alone[:1].tolist(), *places, *alone[1:].tolist())

    def _proposing(self) -> Floats:
        """Seconds of a step that proposing up to so many tokens takes (`[PLACES + 1]`)."""
        return np.arange(PLACES + 1.0) * (self.seconds / max(self.rounds, 1.0))

    def _numbers(self) -> tuple[Any, ...]:
        return self.asked, self.checked, self.tried, self.true, self.rounds, self.seconds
