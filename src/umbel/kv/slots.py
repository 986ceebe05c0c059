"""Where positions live: from the nodes and pages of a Step to KV slots; numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from umbel.ir.step import Step

Ints = NDArray[np.int64]


def row_nodes(step: Step) -> Ints:
    """The node of each row (`[rows]`)."""
    return np.repeat(np.arange(len(step.parent)), step.row_end - step.row_begin)


def slots_of(step: Step, node: Ints, positions: Ints) -> Ints:
    """KV slot of each position in its node (`[k]`); the position must lie inside the node."""
    offset = positions - step.start[node]
    page = step.pages[step.page_begin[node] + offset // step.page_size]
    return page * step.page_size + offset % step.page_size


def path_slots(step: Step, node: Ints, positions: Ints) -> Ints:
    """KV slots of positions (`[items, k]`) on the paths of nodes (`[items]`): each is looked up in the node itself or,
    before the node's start, in the ancestor that covers it."""
    at = np.repeat(node[:, None], positions.shape[1], axis=1)
    while (above := positions < step.start[at]).any():
        at = np.where(above, step.parent[at], at)
    return slots_of(step, at.ravel(), positions.ravel()).reshape(positions.shape)


def write_slots(step: Step, scratch: int) -> Ints:
    """Where each row's KV is written (`[rows]`); rows that are not fresh write to `scratch`, which no one reads."""
    slots = slots_of(step, row_nodes(step), step.positions)
    return np.where(step.fresh, slots, scratch)
