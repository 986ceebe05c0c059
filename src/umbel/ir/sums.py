"""Sums of last hidden states over runs of tokens: what a step is asked for, and what it gives.

States are summed as whole numbers of 2^-28, so that a sum does not depend on the order of its tokens: neither
on how a prompt was cut into runs and chunks, nor on the device.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

UNIT = 2.0**-28  # half of it is the most that a number of a state loses
MOST = 2.0**14  # of a number of a state: 2^20 tokens of it still fit 63 bits


@dataclass(frozen=True, slots=True)
class RowRanges:
    """Ranges of a step's rows, `begin` to `end` (`[runs]`), whose last hidden states are summed."""

    begin: Ints
    end: Ints


@dataclass(frozen=True, slots=True)
class StateSums:
    """Their sums in units (`[runs, hidden]`); `bad` (`[runs]`) where a number was not finite, or beyond what fits."""

    units: Ints
    bad: NDArray[np.bool_]
