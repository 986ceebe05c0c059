"""The seam of what rows forget: a Keeper says from positions alone when and how much, and from a path's keys, values
and queries which places of it stay, for each layer and KV head its own.

As many stay in all layers and heads, so that a memory is a run of whole pages like any other; which ones may differ
from head to head, as they are copied together.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from umbel.cost.forget import Measure
from umbel.ir.kept import Edit
from umbel.ir.kv_shape import KVShape

NOTHING, LAST, ALL = "nothing", "last", "all"


class RowPath(Protocol):
    """What a Keeper may look at: the path of one row in one layer, up to an edge. All of it depends on the row's own
    tokens alone."""

    @property
    def edit(self) -> Edit:
        """Where its prompt ends, where this edge is and the one before, and how many places there are."""
        ...

    @property
    def shape(self) -> KVShape:
        """The layer's attention."""
        ...

    @property
    def keys(self) -> Tensor:
        """The keys at all places, rotated: float32 `[n_kv_heads, places, key_dim]`."""
        ...

    @property
    def values(self) -> Tensor:
        """The values at all places: float32 `[n_kv_heads, places, value_dim]`."""
        ...

    def queries(self, begin: int, end: int) -> Tensor:
        """The queries at positions `[begin, end)` that `needs` keeps: `[n_heads, end - begin, key_dim]`, float32."""
        ...

    @property
    def notes(self) -> Tensor | None:
        """What was noted of the places that an earlier edit left (float32 `[n_kv_heads, kept, numbers]`); None: there
        was none."""
        ...

    def note(self, numbers: Tensor) -> None:
        """Note something of all places (float32 `[n_kv_heads, places, numbers]`), of which what is kept stays."""
        ...


class Keeper(Measure, Protocol):
    """`needs`: which queries must be kept for it: NOTHING, those of the LAST token of each run of a prompt, or ALL."""

    needs: str

    def choose(self, path: RowPath) -> Tensor:
        """The places to keep at an edge, ascending: int64 `[n_kv_heads, live]`."""
        ...
