"""Turns a Policy into the parts of a scheduler: its cache, its queue and its rule of admission."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from umbel.cache.kv_forest import KVForest
from umbel.cache.pages import PagePool
from umbel.cost.lengths import LengthBook
from umbel.ir.forest import Forest
from umbel.ir.params import SamplingParams
from umbel.sched.policies.admission import Admission, Headroom, Reserving
from umbel.sched.policies.longest_prefix import LongestPrefix
from umbel.sched.policies.past_future import PastFuture
from umbel.sched.policies.policy import Policy
from umbel.sched.sequences import Sequences
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
    if policy.queue == "longest-prefix":
        return LongestPrefix(order, samples, kv)
    return Waiting(order, samples)


def build_admission(
    policy: Policy, kv: KVForest, seqs: Sequences, book: LengthBook, certain: NDArray[np.bool_]
) -> Admission:
    """The rule by which samples start; `certain` (`[rows]`) are rows that end only at their limits."""
    if policy.admission == "past-future":
        return PastFuture(kv, seqs, book, certain, policy.overflow)
    kinds = {"aggressive": Admission, "conservative": Reserving, "headroom": Headroom}
    return kinds[policy.admission](kv, seqs)


def ends_at_limit(params: Sequence[SamplingParams], end_ids: tuple[tuple[int, ...], ...]) -> NDArray[np.bool_]:
    """Rows that have no other way to end (`[rows]`): no end token, no stop string."""
    can_stop = np.fromiter((bool(p.stop) for p in params), bool, len(params))
    return np.asarray(~can_stop & np.fromiter((not ids for ids in end_ids), bool, len(end_ids)))
