"""What a fit keeps of measured steps: their second moments, which can be added up and faded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umbel.cost.nonnegative import solve_nonnegative

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Sums over steps in relative units: features and seconds are divided by the expected seconds of the step.

    `gram`: products of features (`[k, k]`).
    `cross`: features times seconds (`[k]`).
    `mass`: the sum of the weights.

    The moments of two sets of steps are the sums of theirs.
    """

    gram: Floats
    cross: Floats
    mass: float

    @classmethod
    def none(cls, k: int) -> Moments:
        """Zeros: moments before the first step is counted."""
        return cls(np.zeros((k, k)), np.zeros(k), 0.0)

    @classmethod
    def of(cls, features: Floats, seconds: Floats, expected: Floats, weights: Floats) -> Moments:
        """The moments of steps: `features` `[steps, k]`; `seconds`, `expected` (above zero) and `weights` `[steps]`."""
        x = features / expected[:, None]
        weighted = x * weights[:, None]
        return cls(weighted.T @ x, weighted.T @ (seconds / expected), float(weights.sum()))

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.gram + other.gram, self.cross + other.cross, self.mass + other.mass)

    def faded(self, share: float) -> Moments:
        """The moments with all weights multiplied by `share`."""
        return Moments(self.gram * share, self.cross * share, self.mass * share)

    def fit(self, prior: Floats, ridge: float) -> Floats:
        """Coefficients (`[k]`, none negative) with the smallest relative error.

        The prior (`[k]`, all positive) is first scaled as a whole to the measured speed, then each coefficient is held
        to it as if `ridge` further steps, of that coefficient's cost alone, had been measured to cost what it says.
        """
        spread = float(prior @ self.gram @ prior)
        scaled = prior * (float(prior @ self.cross) / spread) if spread > 0 and self.mass > 0 else prior
        gram = self.gram * np.outer(scaled, scaled) + ridge * np.eye(len(prior))
        return np.asarray(solve_nonnegative(gram, self.cross * scaled + ridge) * scaled)
