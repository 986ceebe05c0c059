"""Seconds of steps from first principles: the larger of arithmetic and memory traffic, with an honest interval.

The roofline model (Williams, Waterman, Patterson 2009). What a step really reaches lies below both ceilings, so every
price is three: at the ceilings, at the share of them that an ordinary step reaches, and at the share a poor one does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umbel.cost.machine import Machine
from umbel.cost.shape import Shape

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Load:
    """Steps of the same kind, one entry each: what one such step does, and how many there are (`steps`).

    Per step: `tokens` computed, `samples` drawn, `pairs` of query and key, `kv_read` tokens whose KV is read.
    """

    steps: Floats
    tokens: Floats
    samples: Floats
    pairs: Floats
    kv_read: Floats

    @classmethod
    def one(cls, tokens: float, samples: float, pairs: float, kv_read: float) -> Load:
        """A single step."""
        return cls(*(np.array([float(value)]) for value in (1, tokens, samples, pairs, kv_read)))


@dataclass(frozen=True, slots=True)
class Seconds:
    """A time with its interval."""

    low: float
    expected: float
    high: float


@dataclass(frozen=True, slots=True)
class Efficiency:
    """Share of the ceilings that steps reach, and how many times the smallest step's overhead they pay."""

    arithmetic: float
    memory: float
    overhead: float


CEILING = Efficiency(arithmetic=1.0, memory=1.0, overhead=0.0)
ORDINARY = Efficiency(arithmetic=0.6, memory=0.6, overhead=1.0)
POOR = Efficiency(arithmetic=0.25, memory=0.3, overhead=3.0)


@dataclass(frozen=True, slots=True)
class Price:
    """One model on one machine in one dtype."""

    shape: Shape
    machine: Machine
    dtype: str
    n_layers: int

    def flops(self, load: Load) -> Floats:
        """Per step: dense layers, attention, output head."""
        shape = self.shape
        return load.tokens * shape.token_flops + load.pairs * shape.pair_flops + load.samples * shape.head_flops

    def n_bytes(self, load: Load) -> Floats:
        """Per step: every weight once, the KV that is read and the KV that is written; activations stay in cache."""
        shape = self.shape
        head = np.where(load.samples > 0, shape.head_bytes, 0)
        return shape.layer_bytes + head + (load.kv_read + load.tokens) * shape.kv_bytes

    def each(self, load: Load, efficiency: Efficiency = ORDINARY) -> Floats:
        """Seconds per step."""
        arithmetic = self.flops(load) / (self.machine.flops(self.dtype) * efficiency.arithmetic)
        traffic = self.n_bytes(load) / (self.machine.memory_rate * efficiency.memory)
        overhead = (self.machine.step_overhead + self.machine.layer_overhead * self.n_layers) * efficiency.overhead
        return np.asarray(np.maximum(arithmetic, traffic) + overhead)

    def total(self, load: Load) -> Seconds:
        """Seconds of all steps together."""
        low, expected, high = (float((self.each(load, e) * load.steps).sum()) for e in (CEILING, ORDINARY, POOR))
        return Seconds(low, expected, high)
