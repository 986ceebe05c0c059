"""The first tokens and a window of the last ones: StreamingLLM (arXiv 2309.17453), with the rest really forgotten.

The published method counts positions within its cache. Here keys keep the positions that they were rotated for, so
that none is rotated again; distances in the window are what they are in dense attention.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from umbel.attention.forget.base import NOTHING, RowPath
from umbel.cost.forget import SinkWindowMeasure
from umbel.ir.spec import ModelSpec


class SinkWindow(SinkWindowMeasure):
    """At each edge the first `sinks` places stay, and the last `window`: a Keeper without statistics."""

    needs = NOTHING

    def __init__(self, settings: Mapping[str, float], spec: ModelSpec):
        super().__init__(settings)

    def choose(self, path: RowPath) -> Tensor:
        """The same in all heads."""
        places = len(path.edit.sources)
        ends = torch.arange(self.sinks), torch.arange(places - self.window, places)
        return torch.cat(ends).expand(path.shape.n_kv_heads, -1)
