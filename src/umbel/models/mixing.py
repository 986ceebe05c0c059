"""What the rows of a layer get of other tokens, between the product before and the one behind: by attention, or by a
recurrence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from umbel.attention.base import AttentionBackend
from umbel.ir.recurrence import Recurrence
from umbel.kernels.reference import sigmoid
from umbel.linear.base import Weights
from umbel.models.batch import ForwardBatch
from umbel.models.gated_delta import GatedDelta
from umbel.models.heads import LayerHeads
from umbel.models.latent import LatentHeads
from umbel.models.recurrent import Convolution, Recurrent, ShortConv


class Mixing(Protocol):
    """Attention of one layer, or what stands in its place."""

    def apply(self, product: Tensor, batch: ForwardBatch, attention: AttentionBackend) -> Tensor:
        """From what the product "qkv" gave to what "o" reads (`[rows, inputs]`); `attention` was prepared for the
        rows."""
        ...


@dataclass(frozen=True, slots=True)
class Attending:
    """Attention: what is done to `heads`, the layer's `number` among those that have attention, that of its rotary
    positions, its `sinks` (float32 `[n_heads]`), if it has any, and how many numbers behind queries, keys and values
    are `gates` of what it gives."""

    heads: LayerHeads | LatentHeads
    number: int
    rope: int
    sinks: Tensor | None
    gates: int = 0

    def apply(self, product: Tensor, batch: ForwardBatch, attention: AttentionBackend) -> Tensor:
        """Implement `Mixing.apply`."""
        lap, scales = batch.spans.lap, batch.query_scales[self.rope]
        if self.gates:
            product, gates = product[:, : -self.gates].contiguous(), product[:, -self.gates :]
        q = self.heads.place(product, batch.angles[self.rope], attention.place(self.number))
        q = lap("rotary", q if scales is None else q * scales)
        sinks = {} if self.sinks is None else {"sinks": self.sinks}
        seen = lap("attention", attention.attend(self.number, q, **sinks)).reshape(len(product), -1)
        return (seen.float() * sigmoid(gates.float())).to(seen.dtype) if self.gates else seen


def convert_recurrence(named: Weights, own: Recurrence, eps: float) -> Recurrent:
    """The recurrence of a layer from its tensors, named as in `weights.py`."""
    if own.kind == "short_conv":
        return ShortConv(Convolution.of(named))
    return GatedDelta.of(named, own, eps)


@dataclass(frozen=True, slots=True)
class Recurring:
    """A recurrence: which, and the layer's `number` among those that have one."""

    recurrence: Recurrent
    number: int

    def apply(self, product: Tensor, batch: ForwardBatch, attention: AttentionBackend) -> Tensor:
        """Implement `Mixing.apply`."""
        return batch.spans.lap("recurrence", self.recurrence.apply(product, batch.states[self.number]))
