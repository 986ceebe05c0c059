"""Every pair (row, key it may see) is covered by exactly one item of the layout, in order of position."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tests.attention.stage import random_job, steps_of
from umbel.attention.layout import GRID, Layout, lay_out
from umbel.ir.step import Step
from umbel.kv.slots import row_nodes


def visible_slots(step: Step, window: int | None) -> list[list[int]]:
    """Per row the KV slots it attends to, in order of position: walk up from its node, position by position."""
    found = []
    for row, node in enumerate(row_nodes(step).tolist()):
        last = int(step.positions[row])
        slots = []
        at = node
        for position in range(last, (max(0, last + 1 - window) if window else 0) - 1, -1):
            while position < step.start[at]:
                at = int(step.parent[at])
            page, offset = divmod(position - int(step.start[at]), step.page_size)
            slots.append(int(step.pages[step.page_begin[at] + page]) * step.page_size + offset)
        found.append(slots[::-1])
    return found


def covered_slots(step: Step, layout: Layout) -> list[list[int]]:
    """Per row the slots its items read, as attention merges them: wide items first, then narrow ones by rank."""
    found: list[list[int]] = [[] for _ in range(step.n_rows)]
    for wide in layout.wide:
        for row in range(wide.begin, wide.end):
            found[row] += wide.slots.tolist()
    by_rank: list[list[tuple[int, list[int]]]] = [[] for _ in range(step.n_rows)]
    for narrow in layout.narrow:
        for item in range(len(narrow.rows)):
            for place, row in enumerate(narrow.rows[item].tolist()):
                if row >= 0:
                    seen = slice(int(narrow.hidden[item, place]), int(narrow.visible[item, place]))
                    by_rank[row].append((int(narrow.rank[item]), narrow.slots[item, seen].tolist()))
    for row, items in enumerate(by_rank):
        ranks = [rank for rank, _ in items]
        assert len(ranks) == len(set(ranks)), "two results of one rank for a row: one would be lost"
        for _, slots in sorted(items):
            found[row] += slots
    return found


@pytest.mark.parametrize("window", [None, 1, 40, 128, 129, 200])
@pytest.mark.parametrize("seed", range(4))
def test_every_pair_once(seed: int, window: int | None) -> None:
    rng = random.Random(seed)
    job = random_job(rng, 8)
    page_size, chunk = rng.choice((1, 4, 16)), rng.choice((17, 100, 200, 5000))
    pages = max(job.demand(page_size) // rng.choice((1, 3)), job.largest_row(page_size))
    pairs = 0
    for _, step in steps_of(job, pages, page_size, chunk):
        layout = lay_out(step, rng.choice((1, 2, 8)), window)
        wanted = visible_slots(step, window)
        assert covered_slots(step, layout) == wanted
        pairs += sum(len(slots) for slots in wanted)
        assert layout.kv_tokens_read <= sum(len(slots) for slots in wanted) + 2 * GRID * step.n_rows
    assert pairs > (1000 if window != 1 else 100)


def test_rows_that_share_read_once() -> None:
    """32 rows behind a common run of 512 tokens read it as one item each step, not 32 times."""
    job = random_job(random.Random(0), 1)
    head = [i % 50 for i in range(512)]
    job = type(job)([[*head, i, 1] for i in range(32)], [1] * 32, [3] * 32)
    for _, step in steps_of(job, job.demand(16), 16, 10_000):
        layout = lay_out(step, 8)
        assert sum(len(wide.slots) for wide in layout.wide) == 512
        assert layout.kv_tokens_read <= 512 + step.n_rows * GRID
        decoding = step.n_rows == 32
        assert not decoding or layout.kv_tokens_read <= 512 + 32 * 5


def test_slots_of_a_shared_run_lie_side_by_side() -> None:
    """Pages of a node taken from an empty pool are one slab, so that reading it needs no gather."""
    job = random_job(random.Random(3), 6)
    for _, step in steps_of(job, 2 * job.demand(16), 16, 10_000):
        for wide in lay_out(step, 1).wide:
            breaks = int((np.diff(wide.slots) != 1).sum())
            assert breaks <= len(step.parent), "more pieces than nodes on the path"
