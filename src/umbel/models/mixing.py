"""What the rows of a layer get of other tokens, between the product before and the one behind: by attention, or by a
recurrence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from umbel.attention.base import AttentionBackend
from umbel.models.batch import ForwardBatch
from umbel.models.heads import LayerHeads
from umbel.models.latent import LatentHeads
from umbel.models.recurrent import Recurrent


class Mixing(Protocol):
    """Attention of one layer, or what stands in its place."""

    def apply(self, product: Tensor, batch: ForwardBatch, attention: AttentionBackend) -> Tensor:
        """From what the product "qkv" gave to what "o" reads (`[rows, inputs]`); `attention` was prepared for the
        rows."""
        ...


@dataclass(frozen=True, slots=True)
class Attending:
    """Attention: what is done to `heads`, the layer's `number` among those that have attention, that of its rotary
    positions, and its `sinks` (float32 `[n_heads]`), if it has any."""

    heads: LayerHeads | LatentHeads
    number: int
    rope: int
    sinks: Tensor | None

    def apply(self, product: Tensor, batch: ForwardBatch, attention: AttentionBackend) -> Tensor:
        """Implement `Mixing.apply`."""
        lap, scales = batch.spans.lap, batch.query_scales[self.rope]
        q = self.heads.place(product, batch.angles[self.rope], attention.place(self.number))
        q = lap("rotary", q if scales is None else q * scales)
        sinks = {} if self.sinks is None else {"sinks": self.sinks}
        return lap("attention", attention.attend(self.number, q, **sinks)).reshape(len(product), -1)


@dataclass(frozen=True, slots=True)
class Recurring:
    """A recurrence: which, and the layer's `number` among those that have one."""

    recurrence: Recurrent
    number: int

    def apply(self, product: Tensor, batch: ForwardBatch, attention: AttentionBackend) -> Tensor:
        """Implement `Mixing.apply`."""
        return batch.spans.lap("recurrence", self.recurrence.apply(product, batch.states[self.number]))
