"""The only loop brain: decodes first, then prompts in plan order, under a token budget and a pool of pages.

Each call of `next` drafts one step: running samples extend their tails (1), prompts of running samples go on (2), and
samples are admitted in plan order while budget and pages last (3). When pages run out, prompts that nobody runs on are
evicted; if that is not enough the sample that is last in plan order gives its tail up and is computed again later.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from umbel.cache.kv_forest import KVForest
from umbel.cache.pages import PagePool
from umbel.ir.forest import Forest
from umbel.ir.step import Step, StepResult
from umbel.ir.workload import Workload
from umbel.sched.assemble import SamplingTable, assemble
from umbel.sched.draft import Draft
from umbel.sched.sequences import Sequences
from umbel.sched.waiting import Waiting

Ints = NDArray[np.int64]

# Tokens of growth that admission keeps free for each running sample, so that preemption stays rare; so many times more
# with each time that a sample was preempted, so that none is again and again.
HEADROOM_TOKENS = 32
PATIENCE = 4
_MOST_PATIENT = 8


class Scheduler:
    """Decides steps over one workload; `failed` collects (row, reason) of rows that can never fit the pool."""

    def __init__(
        self, workload: Workload, forest: Forest, table: SamplingTable, max_out: Ints, pool: PagePool, chunk: int
    ):
        self.workload = workload
        self.table = table
        self.pool = pool
        self.chunk = chunk
        self.max_out = max_out  # per row: tokens each sample may generate
        self.kv = KVForest(forest, table.n, pool)
        self.seqs = Sequences(pool.page_size)
        self.failed: list[tuple[int, str]] = []
        self.preemptions = 0
        self.computed_tokens = 0
        self.recomputed_tokens = 0
        self.peak_pages = 0
        self.waiting = Waiting(forest.order, table.n)
        self._seen = np.zeros(forest.n_nodes, np.int64)  # tokens of each node computed at least once
        self._draft = Draft(0)
        self._paths: dict[int, list[int]] = {}  # slot -> path, for running slots

    # -- deciding ------------------------------------------------------------------------------------------------

    def next(self) -> Step | None:
        """The next step, or None when every sample is done (or the rest has been reported in `failed`)."""
        while True:
            draft = Draft(self.chunk)
            self._extend_tails(draft)
            self._continue_prompts(draft)
            self._admit(draft)
            if not draft.empty:
                break
            if not self._drop_unfit():
                return None
        self._draft = draft
        self.peak_pages = max(self.peak_pages, self.pool.used)
        return assemble(draft, self.seqs, self.kv, self.workload, self.table)

    def _extend_tails(self, draft: Draft) -> None:
        """(1) Every primed sample goes on, as far as the budget reaches; pages are found or victims are."""
        while True:
            slots = self.seqs.runners()
            slots = slots[self.seqs.primed[slots]]
            wanted = self.seqs.n_out[slots] - self.seqs.held[slots]
            granted = np.clip(draft.budget - (np.cumsum(wanted) - wanted), 0, wanted)
            slots, granted = slots[granted > 0], granted[granted > 0]
            missing = self._pages_short(slots, granted)
            if self.kv.make_room(int(missing.sum())):
                break
            if not self._preempt_last():
                return
        self.seqs.add_pages(slots, missing, self.pool.take_singles(int(missing.sum())))
        draft.tails, draft.tail_tokens = slots, granted
        draft.budget -= int(granted.sum())

    def _pages_short(self, slots: Ints, more: Ints) -> Ints:
        """Pages each slot lacks to hold `more` further tokens in its tail."""
        held = self.seqs.held[slots] + more
        short: Ints = np.maximum(-(-held // self.pool.page_size) - self.seqs.n_pages[slots], 0)
        return short

    def _continue_prompts(self, draft: Draft) -> None:
        """(2) Samples that are not primed yet compute what their prompts still lack."""
        slots = self.seqs.runners()
        for slot in slots[~self.seqs.primed[slots]].tolist():
            self._advance(draft, slot)

    def _advance(self, draft: Draft, slot: int) -> None:
        """Move one unprimed sample on: its path top down, then its first token or its lost tail."""
        path = self._paths[slot]
        for node in path:
            lacking = self.kv.length[node] - int(self.kv.held[node])
            if lacking and node not in draft.nodes:
                if draft.budget == 0:
                    return
                draft.nodes[node] = min(lacking, draft.budget)
                draft.budget -= draft.nodes[node]
            if lacking and draft.nodes[node] < lacking:
                return
        if self.seqs.n_out[slot]:
            self._rebuild_tail(draft, slot)
            return
        leaf = path[-1]
        if leaf not in draft.nodes and leaf not in draft.again:
            if draft.budget == 0:
                return
            draft.again[leaf] = None
            draft.budget -= 1
        draft.firsts.append(slot)

    def _rebuild_tail(self, draft: Draft, slot: int) -> None:
        """Compute a preempted tail again; from then on the sample is like any other."""
        tokens = min(draft.budget, int(self.seqs.n_out[slot]))
        at, more = np.array([slot]), np.array([tokens])
        short = self._pages_short(at, more)
        if tokens == 0 or not self.kv.make_room(int(short.sum())):
            return
        self.seqs.add_pages(at, short, self.pool.take_singles(int(short.sum())))
        self.seqs.primed[slot] = True
        draft.add_tail(slot, tokens)

    def _admit(self, draft: Draft) -> None:
        """(3) Start waiting samples in plan order; one that costs no tokens now (a twin) may start without budget."""
        headroom, least = 0, -1
        while (rank := self.waiting.first()) is not None:
            slot = self.seqs.slot_of.get(rank, -1)
            leaf = int(self.kv.forest.leaf[self.waiting.rows[rank]])
            path = self.kv.path(leaf)
            n_out = int(self.seqs.n_out[slot]) if slot >= 0 else 0
            free_ride = n_out == 0 and (leaf in draft.again or self._completes(draft, leaf))
            if draft.budget == 0 and not free_ride:
                return
            losses = int(self.seqs.losses[slot]) if slot >= 0 else 0
            ahead = HEADROOM_TOKENS * PATIENCE ** min(losses, _MOST_PATIENT)
            if ahead != least:
                headroom, least = self._headroom(ahead), ahead
            growth = self._growth(rank, n_out, ahead)
            needed = self.kv.pages_missing(path) + growth
            busy = len(self._paths) > 0
            if needed + (headroom if busy else 0) > self.kv.reclaimable(path):
                return
            headroom += growth
            self._advance(draft, self._start(rank, slot, path))

    def _completes(self, draft: Draft, leaf: int) -> bool:
        return draft.nodes.get(leaf, -1) == self.kv.length[leaf] - int(self.kv.held[leaf])

    def _headroom(self, least: int) -> int:
        """Pages to keep free for the samples that run now: `least` tokens for each, more for one preempted before."""
        slots = np.flatnonzero(self.seqs.running)
        ahead = np.maximum(HEADROOM_TOKENS * PATIENCE ** np.minimum(self.seqs.losses[slots], _MOST_PATIENT), least)
        upto = np.minimum(self.seqs.n_out[slots] + ahead, self.seqs.max_out[slots])
        return int(np.maximum(-(-upto // self.pool.page_size) - self.seqs.n_pages[slots], 0).sum())

    def _growth(self, rank: int, n_out: int, ahead: int) -> int:
        """Pages that admitting a sample must find for its tail: what it had, and `ahead` tokens more."""
        tokens = min(n_out + ahead, int(self.max_out[self.waiting.rows[rank]]))
        if not self._paths:
            tokens = max(n_out, 1)  # alone, it may try with what there is
        return self.pool.pages_for(tokens)

    def _start(self, rank: int, slot: int, path: list[int]) -> int:
        """Pin the path and give the sample a slot (its old one when it was preempted)."""
        self.kv.pin(path)
        self.waiting.take_first()
        if slot >= 0:
            self.seqs.running[slot] = True
        else:
            row, sample = int(self.waiting.rows[rank]), int(self.waiting.samples[rank])
            prompt_len = int(self.kv.forest.end[path[-1]])
            slot = self.seqs.start(rank, row, sample, path[-1], prompt_len, int(self.max_out[row]))
        self._paths[slot] = path
        return slot

    # -- giving up -----------------------------------------------------------------------------------------------

    def _preempt_last(self) -> bool:
        """Take the tail of the running sample that is last in plan order; False if it is the only one."""
        slots = self.seqs.runners()
        if len(slots) < 2:
            return False
        slot = int(slots[-1])
        self.pool.give(self.seqs.take_pages(slot))
        self.seqs.running[slot] = False
        self.seqs.primed[slot] = False
        self.seqs.losses[slot] += 1
        self.kv.unpin(self._paths.pop(slot), done=False)
        self.waiting.put_back(int(self.seqs.rank[slot]))
        self.preemptions += 1
        return True

    def _drop_unfit(self) -> bool:
        """Nothing could be scheduled: report the row in front as one that cannot fit; False when none is left."""
        slots = self.seqs.runners()
        rank = int(self.seqs.rank[slots[0]]) if len(slots) else self.waiting.first()
        if rank is None:
            return False
        row = int(self.waiting.rows[rank])
        tokens = int(self.kv.forest.end[self.kv.forest.leaf[row]])
        slot = self.seqs.slot_of.get(rank)
        made = int(self.seqs.n_out[slot]) if slot is not None else 0
        pool = self.pool.n_pages * self.pool.page_size
        self.failed.append(
            (row, f"prompt of {tokens} tokens and {made} generated do not fit the KV pool of {pool} tokens")
        )
        self.drop_row(row)
        return True

    def drop_row(self, row: int) -> None:
        """Abandon every sample of a row, in whatever state it is."""
        path = self.kv.path(int(self.kv.forest.leaf[row]))
        for rank in self.waiting.ranks_of(row):
            slot = self.seqs.slot_of.get(rank)
            if slot is not None and self.seqs.running[slot]:
                self.finish(slot)
            elif self.waiting.drop(rank):
                self.kv.skip(path)
                if slot is not None:
                    self.seqs.end(slot)

    # -- what happened -------------------------------------------------------------------------------------------

    def sampled_slots(self) -> Ints:
        """The slots that draw a token in the step last returned, in the order of its samples."""
        draft = self._draft
        reaches = self.seqs.held[draft.tails] + draft.tail_tokens == self.seqs.n_out[draft.tails]
        return np.concatenate([draft.tails[reaches], np.array(draft.firsts, np.int64)])

    def apply(self, result: StepResult) -> Ints:
        """Take in the result of the step last returned; returns the slots that got a token, as in its samples."""
        slots = self.sampled_slots()
        draft = self._draft
        for node, tokens in draft.nodes.items():
            held = int(self.kv.held[node]) + tokens
            new = max(0, held - int(self._seen[node]))
            self.computed_tokens += new
            self.recomputed_tokens += tokens - new
            self._seen[node] = max(held, int(self._seen[node]))
            self.kv.held[node] = held
        decoded = len(slots) - len(draft.firsts)  # tails that reach their end feed one new token each
        self.recomputed_tokens += len(draft.again) + int(draft.tail_tokens.sum()) - decoded
        self.seqs.held[draft.tails] += draft.tail_tokens
        self.seqs.append(slots, result.token_ids)
        self.seqs.primed[np.array(draft.firsts, np.int64)] = True
        self._draft = Draft(0)
        return slots

    def finish(self, slot: int) -> None:
        """A running sample is done: its tail and, where it was the last reader, its prompt nodes are released."""
        self.pool.give(self.seqs.take_pages(slot))
        self.kv.unpin(self._paths.pop(slot), done=True)
        self.seqs.end(slot)

    def check(self) -> None:
        """Raise AssertionError unless every page has exactly one owner and all counts agree."""
        self.kv.check()
        owned = [p for pages in self.kv.pages.values() for p in pages.tolist()]
        for slot in self.seqs.slot_of.values():
            owned += self.seqs.pages[slot, : self.seqs.n_pages[slot]].tolist()
        assert len(owned) == len(set(owned)) == self.pool.used, (len(owned), len(set(owned)), self.pool.used)
        assert set(self._paths) == set(np.flatnonzero(self.seqs.running).tolist())
