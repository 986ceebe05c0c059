"""Steps whose rows pass the layers as a flow says, in the place of those in which all rows pass all."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from umbel.attention.base import AttentionBackend
from umbel.ir.layer_group import LayerGroup
from umbel.ir.step import Step
from umbel.kernels.transfer import upload
from umbel.models.batch import ForwardBatch
from umbel.models.decoder import Decoder
from umbel.runner.flow.base import LayerFlow, Leg, part_of
from umbel.runner.layer_groups import LayerGroups

Ints = NDArray[np.int64]


class LayerTally:
    """Tokens times the layers that they `passed`, and the `whole` of all layers: for reports, beside the plan's."""

    def __init__(self) -> None:
        self.passed = self.whole = 0

    def add(self, passed: int, whole: int) -> None:
        """One step more."""
        self.passed += passed
        self.whole += whole


@dataclass(frozen=True, slots=True)
class _Laid:
    """What attention is laid out for: a step, of which each layer reads so many KV tokens."""

    step: Step
    read: int


class FlowingRows(LayerGroups):
    """Runs steps as LayerGroups does, along the legs of a flow; `tally` counts tokens by layers."""

    def __init__(self, decoder: Decoder, flow: LayerFlow, tally: LayerTally):
        super().__init__(decoder)
        self.flow, self.tally = flow, tally

    def begin(self, group: LayerGroup | None, attention: AttentionBackend) -> None:
        """A step begins, with this attention. Groups of layers are for engines without a flow."""
        assert group is None
        self.attention = attention

    def forward(
        self, step: Step, hidden: Tensor, batch: ForwardBatch, positions: Tensor, asked: Ints, read: int
    ) -> tuple[Tensor, int]:
        """Implement `LayerGroups.forward`."""
        n_layers, passed, total = self.decoder.spec.n_layers, 0, 0.0
        laid = _Laid(step, read)
        for leg in self.flow.legs(step, asked):
            if leg.leave is not None:
                leg.leave(hidden, batch, self.attention)
            if leg.rows is None:
                hidden, laid = self._all(step, hidden, batch, leg, asked, laid)
            else:
                hidden, laid = self._some(step, hidden, batch, positions, asked, leg)
            rows = step.n_rows if leg.rows is None else len(leg.rows)
            passed += rows * len(leg.layers)
            total += laid.read * len(leg.layers)
        self.tally.add(passed, step.n_rows * n_layers)
        return hidden, round(total / n_layers)

    def _all(
        self, step: Step, hidden: Tensor, batch: ForwardBatch, leg: Leg, asked: Ints, laid: _Laid
    ) -> tuple[Tensor, _Laid]:
        """All rows pass a leg."""
        if laid.step is not step:
            laid = self._lay_out(step, batch, asked)
        batch = batch if self._is_last(leg) else replace(batch, wanted=None)
        return self.decoder.forward(hidden, batch, self.attention, leg.layers), laid

    def _some(
        self, step: Step, hidden: Tensor, batch: ForwardBatch, positions: Tensor, asked: Ints, leg: Leg
    ) -> tuple[Tensor, _Laid]:
        """The rows of a leg pass it; the others stay as they are, but for the last leg, which gives those that are
        asked for."""
        assert leg.rows is not None
        part = part_of(step, leg.rows, has_keys=leg.leave is not None)
        if not len(leg.rows):
            return hidden[:0] if self._is_last(leg) else hidden, _Laid(part, 0)
        at = np.searchsorted(leg.rows, asked) if self._is_last(leg) else asked[:0]
        rows, wanted = upload(self.decoder.device, leg.rows, at)
        own = self.decoder.batch(positions[rows], wanted if self._is_last(leg) else None, batch.spans)
        laid = self._lay_out(part, batch, at)
        states = self.decoder.forward(hidden[rows], own, self.attention, leg.layers)
        return states if self._is_last(leg) else hidden.index_copy(0, rows, states), laid

    def _is_last(self, leg: Leg) -> bool:
        return leg.layers.stop == self.decoder.spec.n_layers

    def _lay_out(self, step: Step, batch: ForwardBatch, asked: Ints) -> _Laid:
        """Prepare attention for some rows."""
        return _Laid(step, batch.spans.lap("layout", self.attention.prepare(step)))
