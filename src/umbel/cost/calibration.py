"""Seconds of a step as they were measured: a linear model over a few features of its load, fitted online.

Everything the engine does in a step is linear in one of these amounts, which is why a few coefficients, none of them
negative, come within several percent of real steps where ceilings miss by a factor. Vidur (MLSys 2024) fits operators
one by one; whole steps are enough to price plans, and can be measured while jobs run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umbel.cost.load import Load
from umbel.cost.moments import Moments

Floats = NDArray[np.float64]

FEATURES = ("step", "first tokens", "more tokens", "samples", "pairs", "kv read", "context", "draws")
KNEE = 64  # tokens up to which a further one costs another amount than from there on, as matmuls are thin there

RIDGE = 0.3  # steps' worth of trust in each coefficient of the prior
BATCH_MASS = 256.0  # what one job's steps may count at most, however many they are
STEP_MASS = 8.0
FADE = 0.75  # what older steps count once a full batch of new ones has come
LEVEL_SHARE = 0.5  # of the newest job in how far totals lie above the sum of ordinary steps
ERROR_SHARE = 0.4  # of the newest job in the expected error
SIGMA_PRIOR, SIGMA_LEAST, SIGMA_MOST = 0.35, 0.04, 0.7
QUANTILE = 1.645  # standard deviations either side of nine tenths of the cases
STALLED = 2.0  # a job more times slower or faster than everything known was disturbed, and hardly counts
TRUST_LEAST = 0.02
_LEVEL_MOST = math.log(1.5)
_ROUNDS = 5


def features(load: Load) -> Floats:
    """The amounts that a step's seconds are linear in (`[entries, features]`), per step."""
    tokens = load.tokens
    context = load.pairs / np.maximum(tokens, 1.0)  # keys that a token sees on average: cells merged one by one
    columns = {
        "step": np.ones_like(tokens),
        "first tokens": np.minimum(tokens, KNEE),
        "more tokens": np.maximum(tokens - KNEE, 0.0),
        "samples": load.samples,
        "pairs": load.pairs,
        "kv read": load.kv_read,
        "context": context,
        "draws": load.draws,
    }
    return np.stack([columns[name] for name in FEATURES], axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """A fit of seconds to features, and the moments it needs to go on learning; a few dozen numbers.

    `prior`, `coefficients`: seconds per unit of each feature (`[features]`).
    `level`: logarithm of how far whole jobs lie above the sum of their ordinary steps (stalls, which the fit leaves
        out).
    `variance`: of the logarithm of (measured / expected) seconds of whole jobs, each expected before it was learned
        from.
    `steps`, `jobs`: how many were learned from.
    """

    prior: Floats
    coefficients: Floats
    moments: Moments
    level: float = 0.0
    variance: float = SIGMA_PRIOR**2
    steps: int = 0
    jobs: int = 0

    @classmethod
    def start(cls, prior: Floats) -> Calibration:
        """A calibration without measurements: its coefficients are the prior (`[features]`, seconds, all above
        zero)."""
        prior = np.maximum(prior, 1e-15)
        return cls(prior, prior, Moments.none(len(prior)))

    def each(self, load: Load) -> Floats:
        """Expected seconds per step."""
        return np.asarray(features(load) @ self.coefficients * math.exp(self.level))

    @property
    def sigma(self) -> float:
        """Standard deviation of the logarithm of (measured / expected) seconds of a job."""
        return min(max(math.sqrt(self.variance), SIGMA_LEAST), SIGMA_MOST)

    @property
    def source(self) -> str:
        """What the fit rests on, in words."""
        runs = "1 earlier run" if self.jobs == 1 else f"{self.jobs:,} earlier runs"
        return f"seconds fitted to {self.steps:,} steps of {runs} of this model here"

    def interval(self, expected: float) -> tuple[float, float]:
        """The seconds between which nine jobs of ten end when the mean is `expected`."""
        factor = math.exp(QUANTILE * self.sigma)
        return expected / factor, expected * factor

    def learn(self, load: Load, seconds: Floats) -> Calibration:
        """A better fit, after steps (`load.steps` of each entry) that took `seconds` each (`[entries]`)."""
        keep = np.isfinite(seconds) & (seconds > 0) & (load.steps > 0)
        x, seconds, steps = features(load)[keep], seconds[keep], load.steps[keep]
        if not len(seconds):
            return self
        trust = self._trust(x, seconds, steps)
        coefficients, moments = self._refit(x, seconds, steps, trust)
        total = float((seconds * steps).sum())
        before = float((x @ self.coefficients * steps).sum()) * math.exp(self.level)
        above = math.log(total / float((x @ coefficients * steps).sum()))
        error = math.log(total / before)
        share = LEVEL_SHARE * trust if self.jobs else 1.0
        return replace(
            self,
            coefficients=coefficients,
            moments=moments,
            level=_within((1 - share) * self.level + share * above, _LEVEL_MOST),
            variance=self._next_variance(error, above),
            steps=self.steps + int(steps.sum()),
            jobs=self.jobs + 1,
        )

    def _next_variance(self, error: float, above: float) -> float:
        """The variance after one more job. A first job's error measures the ceilings, not the fit, so only its
        remainder counts."""
        if not self.jobs:
            return max(above**2, (SIGMA_PRIOR / 2) ** 2)
        return (1 - ERROR_SHARE) * self.variance + ERROR_SHARE * _within(error, SIGMA_MOST) ** 2

    def _trust(self, x: Floats, seconds: Floats, steps: Floats) -> float:
        """The weight of a run: 1, or less where it lies so far from all earlier ones that other work must have
        disturbed it."""
        if not self.jobs:
            return 1.0
        off = abs(math.log(_weighted_median(seconds / np.maximum(x @ self.coefficients, 1e-9), seconds * steps)))
        return 1.0 if off <= math.log(STALLED) else max(math.exp(-off) / 2, TRUST_LEAST)

    def _refit(self, x: Floats, seconds: Floats, steps: Floats, trust: float) -> tuple[Floats, Moments]:
        """Coefficients after a few reweightings: errors are relative to the fit, and steps far off it count less
        (Huber)."""
        weights = _weights(seconds, steps) * trust
        older = self.moments.faded(FADE ** (float(weights.sum()) / BATCH_MASS))
        guess = (older + Moments.of(x, seconds, seconds, weights)).fit(self.prior, RIDGE)
        moments = older
        for _ in range(_ROUNDS):
            expected = np.maximum(x @ guess, 1e-9)
            off = np.abs(seconds - expected) / expected
            usual = 1.5 * max(1.48 * _weighted_median(off, weights), 0.02)
            moments = older + Moments.of(x, seconds, expected, weights * np.minimum(1.0, usual / np.maximum(off, 1e-9)))
            guess = moments.fit(self.prior, RIDGE)
        return guess, moments

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return {
            "features": list(FEATURES),
            "prior": self.prior.tolist(),
            "gram": self.moments.gram.tolist(),
            "cross": self.moments.cross.tolist(),
            "mass": self.moments.mass,
            "level": self.level,
            "variance": self.variance,
            "steps": self.steps,
            "jobs": self.jobs,
        }

    @classmethod
    def of_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """The calibration that `as_dict` wrote. Raises ValueError, TypeError or KeyError on anything else."""
        k = len(FEATURES)
        if values["features"] != list(FEATURES):
            raise ValueError(f"fitted over {values['features']}: this version fits over {list(FEATURES)}")
        prior, cross = (np.array(values[name], np.float64).reshape(k) for name in ("prior", "cross"))
        gram = np.array(values["gram"], np.float64).reshape(k, k)
        numbers = [float(values[name]) for name in ("mass", "level", "variance")]
        if not all(np.isfinite(part).all() for part in (prior, cross, gram, np.array(numbers))):
            raise ValueError("a number is not finite")
        if (prior <= 0).any() or (gram < 0).any() or (cross < 0).any() or min(numbers[0], numbers[2]) < 0:
            raise ValueError("a number is negative")
        moments = Moments(gram, cross, numbers[0])
        level, variance = _within(numbers[1], _LEVEL_MOST), numbers[2]
        steps, jobs = int(values["steps"]), int(values["jobs"])
        return cls(prior, moments.fit(prior, RIDGE), moments, level, variance, steps, jobs)


def _weights(seconds: Floats, steps: Floats) -> Floats:
    """The weight of each entry (`[entries]`). Half of it goes by time, as times of whole jobs are to be predicted; half
    goes to all steps equally, as small steps fill other jobs. Together they weigh at most one batch."""
    time = seconds * steps
    mass = min(BATCH_MASS, STEP_MASS * float(steps.sum()))
    return np.asarray((time / time.sum() + steps / steps.sum()) / 2 * mass)


def _within(value: float, most: float) -> float:
    return min(max(value, -most), most)


def _weighted_median(values: Floats, weights: Floats) -> float:
    order = np.argsort(values)
    summed = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(summed, summed[-1] / 2)])
