"""The books of pools, forests and schedulers: that every page has one owner and all counts agree, looked at inside."""

from __future__ import annotations

import numpy as np

from umbel.cache.pages import PagePool
from umbel.cache.tree import KVTree
from umbel.sched.scheduler import Scheduler


def check_pool(pool: PagePool) -> None:
    """Raise AssertionError when the counts and the map of free pages disagree."""
    assert pool.free == int(pool._is_free.sum()), (pool.free, int(pool._is_free.sum()))
    assert pool._holes == int(pool._is_free[: pool._edge].sum()), (pool._holes, pool._edge)


def holders(kv: KVTree) -> set[int]:
    """Shared runs that hold pages."""
    return set(np.flatnonzero((kv.n_pages > 0) & (kv.slot < 0)).tolist())


def check_kv(kv: KVTree) -> None:
    """Raise AssertionError unless pages, users and idle nodes agree with each other and with the pool."""
    check_pool(kv.pool)
    check_labels(kv)
    runs, users = holders(kv), [n for n, users in enumerate(kv.users) if users]
    held = set(np.flatnonzero(kv.n_pages).tolist())
    assert set(kv.idle) == {n for n in held if kv.users[n] == 0}
    assert kv.idle.pages == sum(int(kv.n_pages[n]) for n in kv.idle)
    assert sorted(kv.nodes_in_use().tolist()) == users
    assert all(n in held for n in users if kv.slot[n] < 0)
    assert all(kv.held[n] == 0 for n in range(kv.n_nodes) if n not in held)
    assert (kv.held <= kv.length).all() and (kv.held <= kv.n_pages * kv.pool.page_size).all()
    assert all(users <= waiting for users, waiting in zip(kv.users, kv.waiting, strict=True))
    assert kv.idle.keep.retains or all(kv.waiting[n] > 0 for n in held)
    assert all(kv.parent[n] < 0 or kv.parent[n] in runs for n in held), "a path without its top"
    owned = [p for n in held for p in kv.table.of(n).tolist()]
    assert len(owned) == len(set(owned)) == kv.pool.used, (len(owned), len(set(owned)), kv.pool.used)


def check_labels(kv: KVTree) -> None:
    """Raise AssertionError unless each label lies within its parent's, and those of other subtrees outside."""
    labels, there = kv.labels, np.flatnonzero(kv.labels.low >= 0)
    order = labels.order(there)
    open_path: list[int] = []
    for node in order.tolist():
        assert labels.low[node] < labels.high[node]
        while open_path and open_path[-1] != kv.parent[node]:
            open_path.pop()
        if kv.parent[node] >= 0:
            assert open_path, "not depth-first"
            assert labels.low[open_path[-1]] < labels.low[node] and labels.high[node] <= labels.high[open_path[-1]]
        open_path.append(node)
    assert len(set(labels.low[there].tolist())) == len(there)


def check_books(scheduler: Scheduler) -> None:
    """Raise AssertionError unless every page has exactly one owner and all counts agree."""
    kv, seqs = scheduler.kv, scheduler.seqs
    check_kv(kv)
    started = list(seqs.slot_of.values())
    tips = seqs.tip[started]
    assert set(tips.tolist()) == set(np.flatnonzero((kv.slot >= 0) & (kv.labels.low >= 0)).tolist())
    assert kv.slot[tips].tolist() == started
    assert [kv.users[tip] for tip in tips] == seqs.running[started].tolist()
    assert (kv.start[tips] + kv.length[tips] == seqs.prompt_len[started] + seqs.n_out[started]).all()
    assert seqs.n_running == int(seqs.running.sum())
