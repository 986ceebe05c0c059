"""The order in which rows with a common beginning are neighbours, and where to cut it into windows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class WindowSizes:
    """How large windows are.

    `first`: rows of the first one, small so that the engine starts soon.
    `growth`: each later window is so many times as large as the one before.
    `rows`, `n_bytes`: the largest window. Beginnings are shared within a window, which asks for large ones; but a job
        that is stopped must wait until the current window is planned.
    """

    first: int = 1_024
    growth: int = 4
    rows: int = 32_768
    n_bytes: int = 64 * 2**20


def arrange(keys: NDArray[np.uint16]) -> tuple[Ints, NDArray[np.uint8]]:
    """Order rows so that those with a common beginning are neighbours; otherwise as in the input.

    `keys` (`[rows, levels]`) are digests of ever longer beginnings, 0 where a row is shorter. Returns the order and,
    for each place in it, how many levels its row shares with the one before.
    """
    n, levels = keys.shape
    if not n:
        return np.zeros(0, np.int64), np.zeros(0, np.uint8)
    packed = np.zeros((-(-levels // 4), n), np.uint64)
    for level in range(levels):
        shift = np.uint64(48 - 16 * (level % 4))
        packed[level // 4] |= keys[:, level].astype(np.uint64) << shift
    order = np.lexsort(packed[::-1])
    shared = _shared(keys, order)
    following = np.append(shared[1:], np.uint8(0))
    deepest = np.maximum(shared, following)
    place = np.empty(n, np.int64)
    place[order] = _block_starts(shared, deepest, levels) * (levels + 1) + deepest
    order = np.argsort(place, kind="stable")  # rows of one block that share nothing more keep the input's order
    return order, _shared(keys, order)


def _shared(keys: NDArray[np.uint16], order: Ints) -> NDArray[np.uint8]:
    """The number of levels that the row at each place shares with the one before (0 for the first)."""
    shared = np.zeros(len(order), np.uint8)
    alike = np.ones(len(order) - 1, bool)
    for level in range(keys.shape[1]):
        column = keys[order, level]
        alike &= (column[1:] == column[:-1]) & (column[1:] != 0)
        if not alike.any():
            break
        shared[1:] += alike
    shared[shared == 1] = 0  # the first level stands twice, and counts only when both agree
    return shared


def _block_starts(shared: NDArray[np.uint8], deepest: NDArray[np.uint8], levels: int) -> Ints:
    """For each place, where the block begins of rows that share as many levels as this row shares with any."""
    places = np.arange(len(shared))
    starts = np.zeros(len(shared), np.int64)
    for level in range(1, levels + 1):
        here = deepest == level
        if here.any():
            starts[here] = np.maximum.accumulate(np.where(shared < level, places, 0))[here]
    return starts


def cut(shared: NDArray[np.uint8], n_bytes: Ints, sizes: WindowSizes) -> Iterator[tuple[int, int]]:
    """Cut rows, given in order with their bytes, into windows [start, end), each where neighbours share least.

    A window may be a quarter smaller than its size so that no group is cut in two.
    """
    total = np.concatenate([np.zeros(1, np.int64), np.cumsum(n_bytes)])
    start, size = 0, sizes.first
    while start < len(shared):
        most = int(np.searchsorted(total, total[start] + sizes.n_bytes, "right")) - 1
        end = min(start + size, max(most, start + 1), len(shared))
        if end < len(shared):
            least = start + max(1, (end - start) * 3 // 4)
            end -= int(np.argmin(shared[least : end + 1][::-1]))  # the last of the best places
        yield start, end
        start, size = end, min(size * sizes.growth, sizes.rows)
