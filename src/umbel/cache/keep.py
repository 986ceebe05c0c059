"""Which cached nodes stay when no running sample reads them, and which of these is evicted first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Keep(Protocol):
    """`retains`: whether nodes stay in the pool though no known row needs them, until their pages are wanted."""

    @property
    def retains(self) -> bool:
        """Whether nodes without readers to come are kept."""

    def key(self, label: int, moment: int) -> int:
        """The node with the lowest key is evicted first. `label`: its place in depth-first order; `moment`: when it was
        read last, a little earlier the deeper it lies. A node must not have a lower key than one below it: the end of a
        path goes before its beginning, as it is of no use without it."""


@dataclass(frozen=True, slots=True)
class LastReader:
    """A node is given up with its last reader; before that, what the walk of the forest reaches last goes first
    (BatchLLM, arXiv 2412.03594)."""

    retains: bool = False

    def key(self, label: int, moment: int) -> int:
        """Rows run in the forest's order, so that the highest label is needed last."""
        return -label


@dataclass(frozen=True, slots=True)
class LeastRecent:
    """The node that was read least recently goes first: a prefix cache as servers have it, where it `retains` (vLLM,
    arXiv 2309.06180), or rows that do not run in the forest's order."""

    retains: bool = True

    def key(self, label: int, moment: int) -> int:
        """As recent as its last reader."""
        return moment
