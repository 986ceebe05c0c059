"""Seconds of steps from first principles: the larger of arithmetic and memory traffic, with an honest interval.

The roofline model (Williams, Waterman, Patterson 2009). A step reaches less than both ceilings, so every price is three
numbers: at the ceilings, at the share of them that an ordinary step reaches, and at the share that a poor one does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umbel.cost.calibration import FEATURES, KNEE, Calibration
from umbel.cost.efficiency import CEILING, ORDINARY, POOR, Efficiency, Seconds
from umbel.cost.load import Load
from umbel.cost.machine import Machine
from umbel.cost.shape import Shape

__all__ = ["CEILING", "ORDINARY", "POOR", "Efficiency", "Load", "Price", "Seconds"]

Floats = NDArray[np.float64]


_DRAW = 5e-6  # seconds to draw one sample and note it, beside its logits
_GATHER = 4.0  # times that KV passes through memory when rows gather it: read, written side by side, read twice
_MODULE = 3.3e-4  # seconds of Python and small operations in a layer of transformers' (measured, llama in float32)
_CELLS = 512  # keys of context whose merging costs about as much as the rest of a layer's overhead


@dataclass(frozen=True, slots=True)
class Price:
    """The price of one model on one machine in one dtype.

    With a `calibration`, seconds are fitted to measured steps; without, they follow from the ceilings. FLOPs and bytes
    are those that the answers need. What the engine executes beyond them (rows of padding, whole grid cells of
    attention) shows in measured seconds only.
    """

    shape: Shape
    machine: Machine
    dtype: str
    n_layers: int
    calibration: Calibration | None = None

    @property
    def source(self) -> str:
        """Where the seconds come from."""
        if self.calibration is None:
            return self.machine.source
        return f"{self.machine.source}; {self.calibration.source}"

    def flops(self, load: Load) -> Floats:
        """FLOPs per step: dense layers, attention, output head."""
        shape = self.shape
        return load.tokens * shape.token_flops + load.pairs * shape.pair_flops + load.samples * shape.head_flops

    def n_bytes(self, load: Load) -> Floats:
        """Bytes per step: every weight once, but for experts that no token chooses, the KV that is read and the KV that
        is written; activations stay in cache."""
        shape = self.shape
        head = np.where(load.samples > 0, shape.head_bytes, 0) - shape.expert_bytes * shape.unused**load.tokens
        return shape.layer_bytes + head + (load.kv_read + load.tokens) * shape.kv_bytes

    def each(self, load: Load, efficiency: Efficiency = ORDINARY) -> Floats:
        """Seconds per step; `efficiency` only matters without a calibration."""
        if self.calibration is not None:
            return self.calibration.each(load)
        arithmetic = self.flops(load) / (self.machine.flops(self.dtype) * efficiency.arithmetic)
        traffic = self.n_bytes(load) / (self.machine.memory_rate * efficiency.memory)
        return np.asarray(np.maximum(arithmetic, traffic) + self._overhead() * efficiency.overhead)

    def total(self, load: Load) -> Seconds:
        """Seconds of all steps together."""
        if self.calibration is not None:
            expected = float((self.calibration.each(load) * load.steps).sum())
            low, high = self.calibration.interval(expected)
            return Seconds(low, expected, high)
        return Seconds(*(float((self.each(load, e) * load.steps).sum()) for e in (CEILING, ORDINARY, POOR)))

    def prior(self) -> Floats:
        """Seconds per unit of each feature that a calibration fits (`[features]`), by the ceilings: where fits
        start."""
        shape, efficiency = self.shape, ORDINARY
        per_flop = 1.0 / (self.machine.flops(self.dtype) * efficiency.arithmetic)
        per_byte = 1.0 / (self.machine.memory_rate * efficiency.memory)
        token = shape.token_flops * per_flop + shape.kv_bytes * per_byte
        sample = shape.head_flops * per_flop + _DRAW
        per_unit = {
            "step": self._overhead() + (shape.layer_bytes - shape.expert_bytes) * per_byte,
            "first tokens": token + shape.expert_bytes * per_byte * (1 - shape.unused**KNEE) / KNEE,
            "more tokens": token,
            "samples": sample,
            "pairs": shape.pair_flops * per_flop,
            "kv read": _GATHER * shape.kv_bytes * per_byte,
            "context": self.machine.layer_overhead * self.n_layers / _CELLS,
            "draws": sample,
        }
        return np.array([per_unit[name] for name in FEATURES])

    def _overhead(self) -> float:
        """Seconds that a step takes however small it is."""
        modules = _MODULE * self.shape.hosted_layers
        return self.machine.step_overhead + self.machine.layer_overhead * self.n_layers + modules
