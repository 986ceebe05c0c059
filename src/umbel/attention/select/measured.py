"""What selectors have in common that measure attention before each window, and keep a share `mass` of it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from umbel.attention.select.base import PROMPTS, Have, Ints
from umbel.attention.select.lines import PROBES
from umbel.ir.spec import ModelSpec


class ByMass:
    """Picks for the rows of prompts, by a `mass` of which 1 reads everything."""

    rows = PROMPTS

    def __init__(self, settings: Mapping[str, float], spec: ModelSpec):
        self.mass = settings["mass"]

    @property
    def reads_all(self) -> bool:
        """Whether nothing is to be left out."""
        return self.mass >= 1

    def keys_read(self, keys: Ints) -> Ints:
        """Implement `Selector.keys_read`: heads that look everywhere read everything."""
        return keys


def probes_by_group(layer: int, tile: int, end: int, have: Have) -> Tensor:
    """The last queries of a tile's path before position `end`, by the KV head that they share: `[n_kv_heads,
    group_size, PROBES, key_dim]`."""
    shape = have.shape(layer)
    queries = have.queries(layer, tile, end - PROBES, end).transpose(0, 1)
    return queries.unflatten(0, (shape.n_kv_heads, shape.group_size))
