"""The books of pools, forests and schedulers: that every page has one owner and all counts agree, looked at inside."""

from __future__ import annotations

import numpy as np

from umbel.cache.kv_forest import KVForest
from umbel.cache.pages import PagePool
from umbel.sched.scheduler import Scheduler


def check_pool(pool: PagePool) -> None:
    """Raise AssertionError when the counts and the map of free pages disagree."""
    assert pool.free == int(pool._is_free.sum()), (pool.free, int(pool._is_free.sum()))
    assert pool._holes == int(pool._is_free[: pool._edge].sum()), (pool._holes, pool._edge)


def check_kv(kv: KVForest) -> None:
    """Raise AssertionError unless pages, users and idle nodes agree with each other and with the pool."""
    check_pool(kv.pool)
    assert set(kv._idle) == {n for n in kv.pages if kv.users[n] == 0}
    assert kv.idle_pages == sum(len(kv.pages[n]) for n in kv._idle)
    assert kv.nodes_in_use().tolist() == sorted(kv.in_use)
    assert set(kv.in_use) == {n for n, users in enumerate(kv.users) if users}
    assert all(n in kv.pages for n in kv.in_use)
    assert all(kv.held[n] == 0 for n in range(kv.forest.n_nodes) if n not in kv.pages)
    assert (kv.held <= np.array(kv.length)).all()
    assert all(users <= waiting for users, waiting in zip(kv.users, kv.waiting, strict=True))
    assert kv._retain or all(kv.waiting[n] > 0 for n in kv.pages)
    assert all(kv.parent[n] < 0 or kv.parent[n] in kv.pages for n in kv.pages), "a path without its top"


def check_books(scheduler: Scheduler) -> None:
    """Raise AssertionError unless every page has exactly one owner and all counts agree."""
    check_kv(scheduler.kv)
    owned = [p for pages in scheduler.kv.pages.values() for p in pages.tolist()]
    for slot in scheduler.seqs.slot_of.values():
        owned += scheduler.seqs.pages[slot, : scheduler.seqs.n_pages[slot]].tolist()
    assert len(owned) == len(set(owned)) == scheduler.pool.used, (len(owned), len(set(owned)), scheduler.pool.used)
    assert set(scheduler._paths) == set(np.flatnonzero(scheduler.seqs.running).tolist())
