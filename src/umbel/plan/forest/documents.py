"""Documents as runs of their own in the forest of prompts, and how many tokens are computed where each is so once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from umbel.ir.forest import Forest
from umbel.ir.workload import Workload

Ints = NDArray[np.int64]


def cut_at_documents(forest: Forest, workload: Workload) -> Forest:
    """The same prompts, with every run cut where a document begins or ends.

    A run of several pieces becomes a chain of nodes side by side, so that the order of the others stays. All rows below
    a run have the same documents in it (Documents.keys).
    """
    documents = workload.documents
    if documents is None or not forest.n_nodes:
        return forest
    edges = np.unique(np.concatenate([documents.begin, documents.end]))
    at = workload.offsets[forest.source]
    low, high = (
        np.searchsorted(edges, at + forest.start, "right"),
        np.searchsorted(edges, at + forest.end, "left"),
    )
    pieces = high - low + 1
    first = np.append(0, np.cumsum(pieces))  # the number of each node's first piece
    node = np.repeat(np.arange(forest.n_nodes), pieces)
    piece = np.arange(len(node)) - first[node]
    cut = np.append(edges, 0)[np.minimum(low[node] + piece, len(edges))] - at[node]  # where a piece ends, but the last
    end = np.where(piece == pieces[node] - 1, forest.end[node], cut)
    above = np.append(first[1:] - 1, -1)[forest.parent]  # the last piece of each node's parent
    return Forest(
        parent=np.where(piece > 0, np.arange(len(node)) - 1, above[node]),
        start=np.where(piece > 0, np.append(0, end[:-1]), forest.start[node]),
        end=end,
        source=forest.source[node],
        subtree_end=first[forest.subtree_end[node]],
        rows_below=forest.rows_below[node],
        leaf=first[forest.leaf + 1] - 1,
        order=forest.order,
    )


def copied_tokens(forest: Forest, workload: Workload) -> int:
    """Tokens of documents in a cut forest that are copied instead of computed, as an equal one is computed: all places
    but one of each, among rows that are computed alike."""
    documents = workload.documents
    if documents is None:
        return 0
    which = documents.which(workload.offsets[forest.source] + forest.start)
    nodes = np.flatnonzero(which >= 0)
    scope = np.zeros(len(workload), np.int64) if workload.scope is None else workload.scope
    number = np.stack([documents.number[which[nodes]], scope[forest.source[nodes]]])
    once = np.unique(number, axis=1, return_index=True)[1]
    length = forest.end[nodes] - forest.start[nodes]
    return int(length.sum() - length[once].sum())
