"""Turns a Policy into the parts of a scheduler: its cache, its queue and its rule of admission."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from umbel import registry
from umbel.cache.pages import PagePool
from umbel.cache.tree import KVTree
from umbel.ir.forest import Forest
from umbel.sched.policies.admission import Admission, Books
from umbel.sched.policies.policy import Policy
from umbel.sched.waiting import Waiting

Ints = NDArray[np.int64]


def build_cache(policy: Policy, pool: PagePool) -> KVTree:
    """The KV of the rows' forests, of which there are none yet."""
    return KVTree(pool, registry.load("keep", policy.keep))


def build_queue(policy: Policy, kv: KVTree) -> Waiting:
    """The samples that wait: none yet."""
    made: Waiting = registry.load("queue", policy.queue, kv)
    return made


def build_admission(policy: Policy, books: Books) -> Admission:
    """The rule by which samples start."""
    made: Admission = registry.load("admission", policy.admission, books)
    return made


def follows_nodes(policy: Policy, forest: Forest, order: Ints) -> bool:
    """Whether rows run in the order of the forest's nodes, so that a node's number says when it is needed."""
    return policy.queue == "plan" and bool((np.diff(forest.leaf[order]) >= 0).all())
