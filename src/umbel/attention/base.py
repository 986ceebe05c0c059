"""The seam of attention: a backend is prepared once a step and then called once a layer."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from umbel.ir.step import Step


class AttentionBackend(Protocol):
    """Attention of a step's rows over the forest, keys and values included."""

    def prepare(self, step: Step) -> int:
        """Lay the step out; returns how many KV tokens each layer will read."""
        ...

    def forward(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store `k`, `v` (`[rows, n_kv_heads, head_dim]`) and attend with `q` (`[rows, n_heads, head_dim]`); returns
        the same shape as `q`."""
        ...
