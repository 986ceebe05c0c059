"""What the layers of a forward pass must know of its rows."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from umbel.ir.spans import NO_SPANS, Spans
from umbel.kv.states import StatePlace
from umbel.models.rotary import Angles


@dataclass(frozen=True, slots=True)
class ForwardBatch:
    """Some rows: cosines and sines of their rotary `angles` for each kind of layer (two of `[rows, 1, head_dim / 2]`)
    and what its queries are multiplied by (`[rows, 1, 1]`, None: nothing), and which rows are `wanted` (int64 `[k]`,
    None: all): only these pass what follows the last attention. `spans` record what takes how long. `states`: where
    layers with a recurrence keep theirs."""

    angles: tuple[Angles, ...]
    wanted: Tensor | None = None
    spans: Spans = NO_SPANS
    query_scales: tuple[Tensor | None, ...] = ()
    states: tuple[StatePlace, ...] = ()
