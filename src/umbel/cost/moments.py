"""What a fit needs to remember of measured steps: their second moments, which add up and fade."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umbel.cost.nonnegative import solve_nonnegative

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Sums over steps in relative units, that is of features and seconds divided by the seconds expected of the step.

    `gram` (`[k, k]`): of products of features; `cross` (`[k]`): of features times seconds; `mass`: of the weights. The
    moments of two sets of steps are the sums of theirs.
    """

    gram: Floats
    cross: Floats
    mass: float

    @classmethod
    def none(cls, k: int) -> Moments:
        """Of no steps."""
        return cls(np.zeros((k, k)), np.zeros(k), 0.0)

    @classmethod
    def of(cls, features: Floats, seconds: Floats, expected: Floats, weights: Floats) -> Moments:
        """Of steps with `features` `[steps, k]`; the others are `[steps]`, `expected` above zero."""
        x = features / expected[:, None]
        weighted = x * weights[:, None]
        return cls(weighted.T @ x, weighted.T @ (seconds / expected), float(weights.sum()))

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.gram + other.gram, self.cross + other.cross, self.mass + other.mass)

    def faded(self, share: float) -> Moments:
        """What is left of them when only `share` of their weight counts."""
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
