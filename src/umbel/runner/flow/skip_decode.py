"""The later a token stands in an answer, the fewer layers it passes: it jumps from the first layer over more and more
of those behind it, and passes the last ones.

SkipDecode (arXiv 2307.02628) fixes the layers of each position, falling linearly, so that all rows of a batch may have
one schedule, and keys and values that a token reads are always there: tokens before it passed every layer that it
passes. There all rows are at one position; here each has its own, counted from the end of its prompt, and a layer is
passed by those that need it. It is made for models that were trained with the schedule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from umbel.cost.passed import FallingLayers
from umbel.ir.spec import ModelSpec
from umbel.ir.step import Step
from umbel.kv.slots import row_nodes
from umbel.runner.flow.base import FlowParts, Leg

Ints = NDArray[np.int64]


class SkipDecode:
    """Answers begin with all layers, and come down to a share `least` after `over` tokens. Implements `LayerFlow`."""

    def __init__(self, settings: Mapping[str, float], spec: ModelSpec):
        self.n_layers, self.schedule = spec.n_layers, FallingLayers(settings)

    def open(self, parts: FlowParts) -> None:
        """Implement `LayerFlow.open`: it needs nothing."""

    def legs(self, step: Step, asked: Ints) -> Sequence[Leg]:
        """Implement `LayerFlow.legs`: the first layer, then those in which the same rows have come down."""
        down = 1 + self.n_layers - self._depth(step)  # the layer from which on each row passes all
        ends = np.unique(np.append(down[down > 1], self.n_layers)).tolist()
        begins = [0, *ends[:-1]]
        if not (down > 1).any():
            return [Leg(range(self.n_layers))]
        legs = [Leg(range(1))]
        for begin, end in zip((1, *begins[1:]), ends, strict=True):
            rows = np.flatnonzero(down <= begin)
            legs.append(Leg(range(begin, end), None if len(rows) == step.n_rows else rows))
        return legs

    def _depth(self, step: Step) -> Ints:
        """Layers that each row passes."""
        if step.answers is None:
            return np.full(step.n_rows, self.n_layers)
        begin = np.where(step.answers, step.start, np.iinfo(np.int64).max)  # where the answer above a node begins
        for node in np.flatnonzero(step.answers & (step.parent >= 0)).tolist():
            begin[node] = min(begin[node], begin[step.parent[node]])
        place = step.positions - begin[row_nodes(step)]
        depth = self.schedule.answer_layers(self.n_layers, np.maximum(place, 0))
        return np.where(place < 0, self.n_layers, depth)
