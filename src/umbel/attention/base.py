"""The seam of attention: a backend is prepared once a step, then asked for a place and called once a layer."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from umbel.ir.step import Step
from umbel.kernels.place import Place
from umbel.kernels.view import View


class AttentionBackend(Protocol):
    """Attention of a step's rows over the forest, in a KV store of its own. `name` is that of its Capability."""

    @property
    def name(self) -> str: ...

    def prepare(self, step: Step) -> int:
        """Lay the step out; returns how many KV tokens each layer will read, the mean of the layers by the bytes that a
        token takes in each."""
        ...

    def place(self, layer: int) -> Place:
        """Where the rows' keys and values go in a layer: they must be there before `attend` is called."""
        ...

    def attend(self, layer: int, q: Tensor, select: View | None = None, sinks: Tensor | None = None) -> Tensor:
        """Attention of `q` (`[rows, n_heads, key_dim]`) with the keys and values of the rows' paths, or with those
        that `select` leaves, which only a backend takes whose capability `selects`: `[rows, n_heads, value_dim]`.
        `sinks` (float32 `[n_heads]`) are those of a layer whose KVShape says that it has some."""
        ...
