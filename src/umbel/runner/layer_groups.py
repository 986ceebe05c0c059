"""Steps in which some rows pass only a group of layers, all others every layer (layered prefill, arXiv 2510.08055).

In the layers of the group all rows are multiplied together, so that the experts of a mixture are read once for all of
them. Attention is laid out for the rows that pass what comes next: at most three times in a step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from umbel.attention.base import AttentionBackend
from umbel.ir.layer_group import LayerGroup
from umbel.ir.step import Step
from umbel.ir.step_parts import only_rows, other_rows
from umbel.kernels.transfer import upload
from umbel.models.batch import ForwardBatch
from umbel.models.decoder import Decoder

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class WholeRows:
    """The rows of a step that pass all layers (int64 `[rows]`), the step of them alone, and what the model must know of
    them; which of its rows are `asked` for (`[k]`), if any are before the last group."""

    rows: Tensor
    step: Step
    batch: ForwardBatch
    asked: Ints


class LayerGroups:
    """Runs such steps; between them it keeps the hidden states of rows that have not passed all layers (`kept`,
    `[places, hidden]`)."""

    attention: AttentionBackend

    def __init__(self, decoder: Decoder):
        self.decoder = decoder
        self.kept: Tensor | None = None

    def begin(self, group: LayerGroup | None, attention: AttentionBackend) -> None:
        """A step begins, with this attention: without a group, no row waits any more."""
        self.attention = attention
        if group is None:
            self.kept = None

    def forward(
        self, step: Step, hidden: Tensor, batch: ForwardBatch, positions: Tensor, asked: Ints, read: int
    ) -> tuple[Tensor, int]:
        """From the embeddings of all rows (`[rows, hidden]`) to the states behind the last layer of those that are
        `asked` for (`[k]`, which the batch wants); and the KV tokens that each layer read, the mean of all. Attention
        is prepared for the step, of whose KV tokens each layer reads so many (`read`)."""
        group = step.group
        if group is None or not len(group.rows):
            return self.decoder.forward(hidden, batch, self.attention), read
        own, places = upload(self.decoder.device, group.rows, group.places)
        whole, read_there = self._whole(step, batch, positions, asked), 0
        if group.first:
            assert self.kept is not None
            hidden = hidden.index_copy(0, own, self.kept[places])
            states, read_there = self._pass(whole, hidden, range(group.first))
            hidden = hidden if whole is None else hidden.index_copy(0, whole.rows, states)
            self._lay_out(step, batch, asked)
        batch = batch if group.is_last else replace(batch, wanted=None)
        hidden = self.decoder.forward(hidden, batch, self.attention, range(group.first, group.end))
        if group.is_last:
            self.kept = None
        else:
            self._keep(group, hidden[own], places)
            hidden, read_there = self._pass(whole, hidden, range(group.end, group.n_layers))
        return hidden, round(read * group.share + read_there * (1 - group.share))

    def _whole(self, step: Step, batch: ForwardBatch, positions: Tensor, asked: Ints) -> WholeRows | None:
        """What passes all layers; None where nothing does."""
        others = other_rows(step)
        if not len(others):
            return None
        at = np.searchsorted(others, asked) if step.group is not None and not step.group.is_last else asked[:0]
        rows, wanted = upload(self.decoder.device, others, at)
        own = replace(self.decoder.batch(positions[rows], None, batch.spans), wanted=wanted)
        return WholeRows(rows, only_rows(step, others), own, at)

    def _pass(self, whole: WholeRows | None, hidden: Tensor, layers: range) -> tuple[Tensor, int]:
        """The states of the rows that pass all layers behind some of these, behind the last one of those that are asked
        for, and the KV tokens read."""
        if whole is None:
            return hidden[:0], 0
        is_last = layers.stop == self.decoder.spec.n_layers
        batch = whole.batch if is_last else replace(whole.batch, wanted=None)
        read = self._lay_out(whole.step, batch, whole.asked)
        return self.decoder.forward(hidden[whole.rows], batch, self.attention, layers), read

    def _lay_out(self, step: Step, batch: ForwardBatch, asked: Ints) -> int:
        """Prepare attention and adapters for some rows; returns the KV tokens that each layer reads."""
        if self.decoder.adapters is not None:
            self.decoder.adapters.prepare(step, asked)
        return batch.spans.lap("layout", self.attention.prepare(step))

    def _keep(self, group: LayerGroup, states: Tensor, places: Tensor) -> None:
        """Let states wait at their places."""
        if self.kept is None or not group.first:
            self.kept = states.new_empty(group.size, states.shape[1])
        self.kept[places] = states
