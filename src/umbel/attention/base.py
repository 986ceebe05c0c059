"""The seam of attention: a backend is prepared once a step and then called once a layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from torch import Tensor

from umbel.ir.step import Step
from umbel.kernels.place import Place


class AttentionBackend(Protocol):
    """Attention of a step's rows over the forest, keys and values included."""

    def prepare(self, step: Step) -> int:
        """Lay the step out; returns how many KV tokens each layer will read."""
        ...

    def forward(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store `k`, `v` (`[rows, n_kv_heads, head_dim]`) and attend with `q` (`[rows, n_heads, head_dim]`); returns
        the same shape as `q`."""
        ...


@runtime_checkable
class PlacingBackend(AttentionBackend, Protocol):
    """A backend that says where keys and values go, so that whoever turns them can store them as well."""

    def place(self, layer: int) -> Place:
        """Where those of the step go in a layer."""
        ...

    def forward_placed(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Like `forward`, when they are in their place already."""
        ...


def seams_of(
    backend: AttentionBackend,
) -> tuple[Callable[[int, Tensor, Tensor, Tensor], Tensor], Callable[[int], Place] | None]:
    """What a decoder calls for attention, and where it stores keys and values itself, if it is to."""
    if isinstance(backend, PlacingBackend):
        return backend.forward_placed, backend.place
    return backend.forward, None
