"""Daft's prefix buckets (provider `vllm-prefix-caching`, 0.7): a buffer of rows, sorted, cut and given out by bucket.

Rows come in batches into a buffer. While it holds more than `BUFFER` rows, all of it is sorted as text and cut between
neighbours that have less than a third of either in common; the largest buckets go to the engine until the buffer is
small enough, and at the end of the input all of them. Here tokens stand for the bytes that are sorted and compared.
That small buckets are put together until they have 16 rows changes how they are routed to engines, not their order.
"""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from umbel.ir.workload import Workload
from umbel.sim.case import SimCase
from umbel.sim.policies.setup import Setup, cached

Ints = NDArray[np.int64]

BUFFER = 5000  # rows
BATCH = 128  # rows that come at a time
LEAST_COMMON = 0.33  # share of a prompt that neighbours of one bucket have in common


def buckets(case: SimCase) -> Setup:
    """Rows as Daft gives them to one engine."""
    return cached(case, "daft-buckets", bucket_order(case.workload, case.sorted_rows))


def bucket_order(workload: Workload, sorted_rows: Ints, buffer: int = BUFFER, batch: int = BATCH) -> Ints:
    """The rows in the order in which buckets are given out; `sorted_rows` are all rows, sorted."""
    place = np.empty_like(sorted_rows)
    place[sorted_rows] = np.arange(len(sorted_rows))
    held: list[int] = []  # places of the rows in the buffer, sorted
    out: list[int] = []
    for begin in range(0, len(place), batch):
        held = sorted([*held, *place[begin : begin + batch].tolist()])
        if len(held) > buffer:
            held = _give_out(workload, sorted_rows, held, buffer, out)
    _give_out(workload, sorted_rows, held, 0, out)
    return sorted_rows[np.array(out, np.int64)]


def _give_out(workload: Workload, sorted_rows: Ints, held: list[int], most: int, out: list[int]) -> list[int]:
    """Move the largest buckets to `out` until `most` rows are left, which are returned."""
    heap, first = [], 0
    for i in range(1, len(held) + 1):
        if i == len(held) or _apart(workload, sorted_rows[held[i - 1]], sorted_rows[held[i]]):
            heap.append((first - i, -first, held[first:i]))  # the largest, and of equal ones the last
            first = i
    heapq.heapify(heap)
    left = len(held)
    while left > most:
        _, _, places = heapq.heappop(heap)
        out += places
        left -= len(places)
    return sorted(at for _, _, places in heap for at in places)


def _apart(workload: Workload, a: np.int64, b: np.int64) -> bool:
    """Whether two prompts have less than `LEAST_COMMON` of either in common."""
    one, other = workload.prompt(int(a)), workload.prompt(int(b))
    most = min(len(one), len(other))
    differ = np.flatnonzero(one[:most] != other[:most])
    common = int(differ[0]) if len(differ) else most
    return common < LEAST_COMMON * len(one) and common < LEAST_COMMON * len(other)
