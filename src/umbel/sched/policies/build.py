"""Turns a Policy into the parts of a scheduler: its books, and the phase in which samples start."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from umbel import registry
from umbel.cache.pages import PagePool
from umbel.cache.tree import KVTree
from umbel.cost.lengths import LengthBook
from umbel.ir.forest import Forest
from umbel.sched.books import Books
from umbel.sched.in_flight import InFlight
from umbel.sched.phases.admit import Admit
from umbel.sched.phases.base import Phase
from umbel.sched.phases.decode import Decode
from umbel.sched.phases.prompts import Prompts
from umbel.sched.policies.lines import Lines
from umbel.sched.policies.policy import Policy
from umbel.sched.policies.stall_free import AdmitInPace, DecodeInPace, PromptsInTurn, PromptsLeft
from umbel.sched.request_table import RequestTable
from umbel.sched.sequences import Sequences

Ints = NDArray[np.int64]


def build_books(policy: Policy, pool: PagePool, lengths: LengthBook) -> Books:
    """The books of a scheduler that has no rows yet."""
    kv = KVTree(pool, registry.load("keep", "last-reader" if policy.keep == "auto" else policy.keep))
    seqs, requests = Sequences(), RequestTable()
    return Books(
        kv=kv,
        seqs=seqs,
        waiting=registry.load("queue", policy.queue, kv, requests),
        in_flight=InFlight(seqs, requests),
        requests=requests,
        lengths=lengths,
        victim=registry.load("victim", policy.victim),
        overflow=policy.overflow,
        step_cost=policy.step_cost,
    )


def build_phases(policy: Policy, books: Books) -> tuple[Admit, list[Phase]]:
    """The phase in which samples start, by the rule of the policy, and all phases that give a step's tokens out."""
    admission, most = registry.load("admission", policy.admission, books), policy.max_running
    pace = policy.pace
    if not isinstance(books.waiting, Lines):
        plain = Admit(admission, most)
        return plain, [Decode(), Prompts(), plain]
    urgent = AdmitInPace(admission, most, pace)
    prompts = PromptsInTurn(pace)
    in_turn = [DecodeInPace(pace), prompts, urgent, PromptsLeft(prompts)]
    return urgent, [registry.load("step", policy.step, in_turn, pace)]


def follows_nodes(policy: Policy, forest: Forest, order: Ints) -> bool:
    """Whether rows run in the order of the forest's nodes, so that a node's number says when it is needed."""
    return policy.queue == "plan" and bool((np.diff(forest.leaf[order]) >= 0).all())
