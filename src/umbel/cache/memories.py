"""The seam by which a tree has samples that stand on memories of their own; None where nothing is forgotten."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from umbel.ir.step import Step
from umbel.ir.workload import Workload

NEVER = 1 << 62
"""The edge of a tip below which nothing is forgotten."""

DRAWN, DRAWN_WHOLE = 1, 2
"""How a node is marked whose tokens were drawn; 2: by a row that leaves out what others select or forget."""


class Unpin(Protocol):
    """Ends the use of a path by a sample, for good when it is `done`."""

    def __call__(self, path: list[int], *, done: bool) -> None: ...


class Memories(Protocol):
    """Tips whose paths were cut down: each hangs from a memory that only it reads, instead of from its prompt."""

    def join(self, first: int, workload: Workload) -> None:
        """More rows, of which this is the number of the first."""
        ...

    def first_edge(self, start: int) -> int:
        """The first edge of a tip that begins at a position."""
        ...

    def rejoin(self, tip: int) -> Unpin:
        """A tip that is about to lose its pages hangs from its prompt again, and its memory is gone. Gives what ends
        the use of that path, which is not in use by a tip that had a memory."""
        ...

    def pages_beside(self, path: list[int]) -> int:
        """Pages that the memory of one more sample takes while its path, which others read too, is still there."""
        ...

    def mark(self, step: Step, nodes: NDArray[np.int64]) -> Step:
        """A step of these nodes of the tree, with places instead of positions, and with what is to be forgotten."""
        ...
