"""The seam of attention for backends whose keys and values are stored before they are called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from torch import Tensor

from umbel.attention.base import AttentionBackend
from umbel.kernels.place import Place


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
