"""What rows read of their paths in one layer: some nodes of the step, or some blocks of their keys.

Backends whose capability record says `selects` obey such a view; to the others it is not given.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Piece:
    """What rows `[begin, end)` of a step read of one of its nodes, for each KV head and the query heads that share it:
    `blocks` (bool `[n_kv_heads, blocks]`) says which blocks of its keys. All rows that share a node and its piece read
    the same keys."""

    node: int
    begin: int
    end: int
    blocks: Tensor


@dataclass(frozen=True, slots=True)
class View:
    """Pieces of the nodes that are not read whole; a node without a piece for a row is. There is at most one piece for
    a node and a row.

    Block b of a node holds the keys `[b * block, (b + 1) * block)` from the node's start on, the last block fewer.
    Causality and a sliding window hold as always, and a row always reads its own key, so that none reads nothing.
    """

    block: int
    pieces: tuple[Piece, ...]


def check_whole(backend: str, select: View | None) -> None:
    """Raise ValueError where a backend that reads whole paths is given something else."""
    if select is not None:
        raise ValueError(f"{backend} attention reads whole paths: it was given a view of {len(select.pieces)} pieces")
