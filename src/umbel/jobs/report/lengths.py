"""Counts answers by their length, in stretches that are the same for all jobs, so that the counts of parts add up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

# 0, 1, 2, 3, then two to each doubling: 4 and 5, 6 and 7, 8 to 11, 12 to 15, 16 to 23 ...
EDGES = (0, 1, 2, *(part * 2**power for power in range(20) for part in (3, 4)))
KINDS = ("planned", "answered")


def counted(lengths: Sequence[int] | Ints) -> Ints:
    """`[stretches]`: how many lengths lie in each stretch, which goes from its edge to the one before the next."""
    places = np.searchsorted(EDGES, np.asarray(lengths, np.int64), side="right") - 1
    return np.bincount(places, minlength=len(EDGES)).astype(np.int64)


def added(one: Mapping[str, Sequence[int]] | None, other: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    """The counts of both."""
    return {
        kind: [a + b for a, b in zip(one[kind] if one else [0] * len(EDGES), other[kind], strict=True)]
        for kind in KINDS
    }


def stretches(counts: Mapping[str, Sequence[int]]) -> list[dict[str, Any]]:
    """The stretches from the shortest length to the longest, each with `low`, `high` and how many samples were
    `planned` and `answered` with such a length; none where nothing was answered."""
    used = [i for i in range(len(EDGES)) if any(counts[kind][i] for kind in KINDS)]
    if not used:
        return []
    ends = [*(edge - 1 for edge in EDGES[1:]), 2**31]
    return [
        {"low": EDGES[i], "high": ends[i], **{kind: counts[kind][i] for kind in KINDS}}
        for i in range(used[0], used[-1] + 1)
    ]
