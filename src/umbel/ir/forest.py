"""The prefix forest of a workload: every run of tokens that prompts share, once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Forest:
    """Nodes in depth-first order (a parent before its children, each subtree contiguous), as arrays.

    `parent`: `[nodes]`, -1 for a root.
    `start`, `end`: `[nodes]`, token positions it covers; `start` is the parent's `end`.
    `source`: `[nodes]`, a row whose prompt holds the node's tokens: `prompt(source)[start:end]`.
    `subtree_end`: `[nodes]`, one past the last node of its subtree.
    `rows_below`: `[nodes]`, rows whose prompt ends in its subtree.
    `leaf`: `[rows]`, the node where a prompt ends: `end[leaf]` is the prompt's length.
    `order`: the rows as a depth-first walk meets them.

    Every node has at least one token; a prompt that is a prefix of another ends at an inner node; equal prompts share
    one leaf.
    """

    parent: Ints
    start: Ints
    end: Ints
    source: Ints
    subtree_end: Ints
    rows_below: Ints
    leaf: Ints
    order: Ints

    @classmethod
    def empty(cls) -> Forest:
        """An empty forest, without rows."""
        return cls(*(np.zeros(0, np.int64) for _ in range(8)))

    @property
    def n_nodes(self) -> int:
        """The number of nodes."""
        return len(self.parent)

    @property
    def n_tokens(self) -> int:
        """Distinct prompt tokens: those computed when every shared run is computed once."""
        return int((self.end - self.start).sum())
