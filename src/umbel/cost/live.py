"""The price of steps while they run: fitted again and again to those that were measured so far."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from umbel.cost.calibration import Calibration
from umbel.cost.load import Load
from umbel.cost.meter import Meter
from umbel.cost.roofline import Price

Floats = NDArray[np.float64]

FIRST = 24  # steps measured before the first fit; the next is due when there are twice as many, and so on


class Prices(Protocol):
    """What steps cost."""

    def renewed(self) -> bool:
        """Whether prices have changed since this was asked last."""
        ...

    def each(self, load: Load) -> Floats:
        """Seconds per step (`[entries]`)."""
        ...


class LivePrice:
    """The price of a plan, and from FIRST steps on what it becomes by the steps of the run that `meter` counts,
    which may be cleared meanwhile."""

    def __init__(self, price: Price, meter: Meter):
        self._price, self._meter = price, meter
        self._start = price.calibration or Calibration.start(price.prior())
        self._seen, self._due = 0.0, FIRST

    def renewed(self) -> bool:
        """For Prices."""
        if self._meter.steps < self._seen:  # it was cleared: what it has taught stays
            self._start, self._due = self._price.calibration or self._start, FIRST
        self._seen = self._meter.steps
        if self._meter.steps < self._due:
            return False
        self._due = 2 * self._meter.steps
        fitted = self._start.learn(self._meter.load(), self._meter.seconds())
        self._price = replace(self._price, calibration=fitted)
        return True

    def each(self, load: Load) -> Floats:
        """For Prices."""
        return self._price.each(load)
