"""Turns a Policy into the parts of a scheduler: its cache, its queue and its rule of admission."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from umbel import registry
from umbel.cache.kv_forest import KVForest
from umbel.cache.pages import PagePool
from umbel.ir.forest import Forest
from umbel.ir.params import SamplingParams
from umbel.sched.policies.admission import Admission, Books
from umbel.sched.policies.policy import Policy
from umbel.sched.waiting import Waiting

Ints = NDArray[np.int64]


def build_cache(policy: Policy, forest: Forest, order: Ints, samples: Ints, pool: PagePool) -> KVForest:
    """The KV of the forest; only rows of the order are waited for, and node numbers count only if it follows them."""
    per_row = np.zeros_like(samples)
    per_row[order] = samples[order]
    walks = policy.queue == "plan" and bool((np.diff(forest.leaf[order]) >= 0).all())
    return KVForest(forest, per_row, pool, recent=not walks, retain=policy.keep == "lru")


def build_queue(policy: Policy, order: Ints, samples: Ints, kv: KVForest) -> Waiting:
    """The samples of the order, waiting."""
    made: Waiting = registry.load("queue", policy.queue, order, samples, kv)
    return made


def build_admission(policy: Policy, books: Books) -> Admission:
    """The rule by which samples start."""
    made: Admission = registry.load("admission", policy.admission, books)
    return made


def ends_at_limit(params: Sequence[SamplingParams], end_ids: tuple[tuple[int, ...], ...]) -> NDArray[np.bool_]:
    """Rows that have no other way to end (`[rows]`): no end token, no stop string."""
    can_stop = np.fromiter((bool(p.stop) for p in params), bool, len(params))
    return np.asarray(~can_stop & np.fromiter((not ids for ids in end_ids), bool, len(end_ids)))
