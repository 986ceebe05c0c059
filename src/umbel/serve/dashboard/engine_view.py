"""What an engine is doing between two steps, as plain numbers: rows that run and wait, and who holds its KV."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from umbel.cache.tree import KVTree
from umbel.engine.loop import Loop

MOST_ROWS, MOST_NODES = 12, 16  # that are listed


@dataclass(frozen=True, slots=True)
class RunningRow:
    """A sample that runs: the number of its row in the session, the tokens of its prompt, those that it has written and
    the most that it may."""

    row: int
    prompt_tokens: int
    written: int
    most: int


@dataclass(frozen=True, slots=True)
class HeldRun:
    """Run number `node` of the forest, which samples read: at `depth` below a root, `tokens` whose KV is held, in
    `pages`, for `readers`."""

    node: int
    depth: int
    tokens: int
    pages: int
    readers: int


@dataclass(frozen=True, slots=True)
class EngineView:
    """One moment of an engine. Pages: of the `pool`, those that runs shared by samples hold, those of their own ends,
    and those that are `cached` for prompts to come. `beneath`: samples that run and are less urgent than requests.
    `runs` are those of `n_runs` in use that spare most, depth-first;
    `listed` are the first of `running` samples."""

    running: int = 0
    waiting: int = 0
    steps: int = 0
    page_size: int = 1
    pool: int = 0
    shared: int = 0
    own: int = 0
    cached: int = 0
    n_runs: int = 0
    n_tips: int = 0
    runs: tuple[HeldRun, ...] = ()
    listed: tuple[RunningRow, ...] = ()
    beneath: int = 0

    @property
    def free(self) -> int:
        """Pages that nothing holds."""
        return max(0, self.pool - self.shared - self.own - self.cached)

    def share(self, pages: int) -> float:
        """Some pages as a share of the pool."""
        return pages / max(1, self.pool)


def look_at(loop: Loop) -> EngineView:
    """The engine of a loop, of which no step may be under way."""
    scheduler, kv = loop.scheduler, loop.scheduler.kv
    nodes = kv.nodes_in_use()
    pages, tips = kv.n_pages[nodes], kv.slot[nodes] >= 0
    cached = kv.idle.pages
    return EngineView(
        running=scheduler.seqs.n_running,
        beneath=int((scheduler.requests.priority[scheduler.seqs.row[scheduler.seqs.runners()]] > 0).sum()),
        waiting=len(scheduler.waiting.rows_to_start()),
        steps=scheduler.steps,
        page_size=scheduler.pool.page_size,
        pool=scheduler.pool.n_pages,
        shared=int(pages[~tips].sum()),
        own=int(pages[tips].sum()),
        cached=int(cached),
        n_runs=int((~tips).sum()),
        n_tips=int(tips.sum()),
        runs=_runs(kv, nodes[~tips]),
        listed=_rows(loop),
    )


def _runs(kv: KVTree, nodes: np.ndarray) -> tuple[HeldRun, ...]:
    readers = np.array([kv.users[node] for node in nodes.tolist()], np.int64)
    largest = np.sort(np.argsort(-kv.held[nodes] * readers, kind="stable")[:MOST_NODES])
    return tuple(
        HeldRun(
            node=node,
            depth=len(kv.path(node)) - 1,
            tokens=kv.held.item(node),
            pages=kv.n_pages.item(node),
            readers=kv.users[node],
        )
        for node in nodes[largest].tolist()
    )


def _rows(loop: Loop) -> tuple[RunningRow, ...]:
    seqs, requests = loop.scheduler.seqs, loop.scheduler.requests
    slots = seqs.runners()[:MOST_ROWS].tolist()
    rows = [seqs.row.item(slot) for slot in slots]
    return tuple(
        RunningRow(row, requests.prompt_len(row), seqs.n_out.item(slot), seqs.max_out.item(slot))
        for row, slot in zip(rows, slots, strict=True)
    )
