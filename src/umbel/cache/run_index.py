"""The seam of indexes over the shared runs of a KV tree, which learn of runs as these come and go, and find them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Found:
    """Where a beginning ends in the tree: it reaches `matched` tokens into `node` (all of them: to its end), and is
    `length` tokens long in all. `node` is -1 where not even the first token is there."""

    node: int
    matched: int
    length: int


class RunIndex(Protocol):
    """Finds beginnings of token sequences among the runs of a tree."""

    def add(self, node: int) -> None:
        """A run is in the tree."""

    def drop(self, node: int) -> None:
        """A run is gone."""

    def find(self, tokens: NDArray[np.int32], node: int = -1, scope: int = 0) -> Found:
        """The longest beginning of `tokens` below the end of `node` (-1: of prompts of a `scope`)."""
