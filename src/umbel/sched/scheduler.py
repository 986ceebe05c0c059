"""The only loop brain: decodes first, then prompts in plan order, under a token budget and a pool of pages.

Each call of `next` drafts one step: running samples extend their tails (1), prompts of running samples go on (2), and
samples are admitted in plan order while budget and pages last (3). When pages run out, prompts that nobody runs on are
evicted; if that is not enough the sample that is last in plan order gives its tail up and is computed again later.
Which sample is next, what stays in the pool and what may start are rules of a Policy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from umbel.cache.pages import PagePool
from umbel.cost.lengths import LengthBook
from umbel.ir.growable import Growable
from umbel.ir.sampled import Drawing, Ended, Outcomes, SampledTokens
from umbel.ir.step import Step
from umbel.sched.assembler import Assembler
from umbel.sched.draft import Draft
from umbel.sched.in_flight import InFlight
from umbel.sched.lot import Lot
from umbel.sched.policies.admission import Books, Candidate
from umbel.sched.policies.build import build_admission, build_cache, build_queue, follows_nodes
from umbel.sched.policies.policy import Policy
from umbel.sched.request_table import RequestTable
from umbel.sched.sequences import Sequences
from umbel.sched.unfit import never_fitting

Ints = NDArray[np.int64]


class Scheduler(Growable):
    """Decides steps over the rows that were added; `failed` collects (row, reason) of rows that can never fit the pool.

    A step computes at most `chunk` tokens. `lengths` is what is known of how long answers are; it learns from every
    sample that ends. Counters: `preemptions`, of `evicted_rows` different rows; prompt tokens computed for the first
    time, and tokens computed again; `peak_pages` and `peak_running` of any step; `occupied_pages`, the pages in use
    (cached ones without a user left out) summed over `steps`.
    """

    _seen: Ints  # [nodes] tokens of each computed at least once

    def __init__(self, pool: PagePool, chunk: int, policy: Policy | None = None, lengths: LengthBook | None = None):
        super().__init__()
        self.pool = pool
        self.chunk = chunk
        self.policy = policy = policy or Policy()
        self.requests = RequestTable()
        self.kv = build_cache(policy, pool)
        self.seqs = Sequences(pool.page_size)
        self.waiting = build_queue(policy, self.kv)
        self.lengths = lengths or LengthBook()
        books = Books(self.kv, self.seqs, self.lengths, self.requests, policy.overflow)
        self.admission = build_admission(policy, books)
        self.failed: list[tuple[int, str]] = []
        self.steps = self.preemptions = self.computed_tokens = self.recomputed_tokens = 0
        self.peak_pages = self.peak_running = self.occupied_pages = 0
        self._evicted: set[int] = set()  # rows that were ever preempted
        self._draft, self.in_flight = Draft(0), InFlight(self.seqs, self.requests)
        self._assembler = Assembler(self.seqs, self.kv, self.requests)
        self._paths: dict[int, list[int]] = {}  # slot -> path, for running slots

    def add(self, lot: Lot) -> int:
        """More rows, numbered on from those that are there; returns the number of the first. Rows that the order of the
        lot leaves out never run."""
        first, forest = len(self.requests), lot.forest
        order = forest.order if lot.order is None else lot.order
        self.requests.extend(lot)
        samples, run = self.requests.n[first:], np.zeros(len(lot.workload), np.int64)
        run[order] = samples[order]
        self.kv.follow(recent=not follows_nodes(self.policy, forest, order))
        self.kv.graft(forest, run)
        self.waiting.extend(order, samples)
        self.lengths.add_rows(lot.row_groups, lot.templates)
        self._grow(_seen=np.zeros(forest.n_nodes, np.int64))
        for row, reason in never_fitting(self.requests, order + first, self.pool):
            self.failed.append((row, reason))
            self.drop_row(row)
        return first

    @property
    def evicted_rows(self) -> int:
        """Rows of which a sample was preempted at least once."""
        return len(self._evicted)

    # -- deciding ------------------------------------------------------------------------------------------------

    def next(self) -> Step | None:
        """The next step; None when every sample is done (or the rest has been reported in `failed`), or when nothing
        can be decided before the step under way is settled."""
        while True:
            draft = Draft(self.chunk)
            self._extend_tails(draft)
            self._continue_prompts(draft)
            self._admit(draft)
            if not draft.empty:
                break
            if self.in_flight or not self._drop_unfit():
                return None
        self._draft = draft
        self._note()
        return self._assembler.step(draft)

    def _note(self) -> None:
        """Count what the step holds."""
        self.steps += 1
        self.peak_pages = max(self.peak_pages, self.pool.used)
        self.peak_running = max(self.peak_running, len(self._paths))
        self.occupied_pages += self.pool.used - self.kv.idle_pages

    def _extend_tails(self, draft: Draft) -> None:
        """(1) Every primed sample goes on, as far as the budget reaches; pages are found or victims are."""
        while True:
            slots = self.seqs.runners()
            slots = self.in_flight.known(slots[self.seqs.primed[slots]])
            lacking = self.seqs.n_out[slots] - self.seqs.held[slots]
            wanted = np.where(self.seqs.n_out[slots] < self.seqs.max_out[slots], lacking, 0)  # full ones end soon
            granted = np.clip(draft.budget - (np.cumsum(wanted) - wanted), 0, wanted)
            slots, granted = slots[granted > 0], granted[granted > 0]
            missing = self.seqs.pages_short(slots, granted)
            if self.kv.make_room(int(missing.sum())):
                break
            if not self._preempt_last():
                return
        self.seqs.add_pages(slots, missing, self.pool.take_singles(int(missing.sum())))
        draft.tails, draft.tail_tokens = slots, granted
        draft.budget -= int(granted.sum())

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
            if len(self.in_flight.known(np.array([slot]))):
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
        short = self.seqs.pages_short(at, more)
        if tokens == 0 or not self.kv.make_room(int(short.sum())):
            return
        self.seqs.add_pages(at, short, self.pool.take_singles(int(short.sum())))
        self.seqs.primed[slot] = True
        draft.add_tail(slot, tokens)

    def _admit(self, draft: Draft) -> None:
        """(3) Start waiting samples in their order; one that costs no tokens now (a twin) may start without budget."""
        self.admission.begin()
        most = self.policy.max_running
        while (rank := self.waiting.first()) is not None and (most is None or len(self._paths) < most):
            slot = self.seqs.slot_of.get(rank, -1)
            row = int(self.waiting.rows[rank])
            leaf = int(self.kv.forest.leaf[row])
            n_out, losses = (int(self.seqs.n_out[slot]), int(self.seqs.losses[slot])) if slot >= 0 else (0, 0)
            free_ride = n_out == 0 and (leaf in draft.again or self._completes(draft, leaf))
            if draft.budget == 0 and not free_ride:
                return
            sample = Candidate(row, self.kv.path(leaf), n_out, losses, int(self.requests.limit[row]))
            # Alone, it may try with what there is.
            fits = self.admission.admits if self._paths else self.admission.fits_now
            if not fits(sample):
                return
            self._advance(draft, self._start(rank, slot, sample.path))

    def _completes(self, draft: Draft, leaf: int) -> bool:
        return draft.nodes.get(leaf, -1) == self.kv.length[leaf] - int(self.kv.held[leaf])

    def _start(self, rank: int, slot: int, path: list[int]) -> int:
        """Pin the path and give the sample a slot (its old one when it was preempted)."""
        self.kv.pin(path)
        self.waiting.take(rank)
        if slot >= 0:
            self.seqs.resume(slot)
        else:
            row, sample = int(self.waiting.rows[rank]), int(self.waiting.samples[rank])
            prompt_len = int(self.kv.forest.end[path[-1]])
            slot = self.seqs.start(rank, row, sample, path[-1], prompt_len, int(self.requests.limit[row]))
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
        self.seqs.pause(slot)
        self.kv.unpin(self._paths.pop(slot), done=False)
        self.waiting.put_back(int(self.seqs.rank[slot]))
        self.preemptions += 1
        self._evicted.add(int(self.seqs.row[slot]))
        return True

    def _drop_unfit(self) -> bool:
        """Nothing could be scheduled: report the row in front as one that cannot fit; False when none is left."""
        slots = self.seqs.runners()
        rank = int(self.seqs.rank[slots[0]]) if len(slots) else self.waiting.first()
        if rank is None:
            return False
        row = int(self.waiting.rows[rank])
        made = int(self.seqs.n_out[self.seqs.slot_of[rank]]) if rank in self.seqs.slot_of else 0
        what = f"prompt of {self.requests.prompt_len(row)} tokens and {made} generated"
        self.failed.append((row, f"{what} do not fit the KV pool of {self.pool.n_pages * self.pool.page_size} tokens"))
        self.drop_row(row)
        return True

    def drop_row(self, row: int) -> None:
        """Abandon every sample of a row, in whatever state it is."""
        path = self.kv.path(int(self.kv.forest.leaf[row]))
        for rank in self.waiting.ranks_of(row):
            slot = self.seqs.slot_of.get(rank)
            if slot is not None:
                self._leave(slot)
            elif self.waiting.drop(rank):
                self.kv.skip(path)

    # -- what happened -------------------------------------------------------------------------------------------

    def advance(self) -> Drawing:
        """The step last returned is under way, and all that it leaves is known but its draws: until `settle`, which
        must come before the step after the next is decided, the token of draw i is the placeholder -1 - i."""
        draft = self._draft
        reaches = self.seqs.held[draft.tails] + draft.tail_tokens == self.seqs.n_out[draft.tails]
        slots = np.concatenate([draft.tails[reaches], np.array(draft.firsts, np.int64)])
        for node, tokens in draft.nodes.items():
            held = int(self.kv.held[node]) + tokens
            new = max(0, held - int(self._seen[node]))
            self.computed_tokens += new
            self.recomputed_tokens += tokens - new
            self._seen[node] = max(held, int(self._seen[node]))
            self.kv.held[node] = held
            self.waiting.cached(node)
        decoded = len(slots) - len(draft.firsts)  # tails that reach their end feed one new token each
        self.recomputed_tokens += len(draft.again) + int(draft.tail_tokens.sum()) - decoded
        self.seqs.held[draft.tails] += draft.tail_tokens
        self.seqs.append(slots, -1 - np.arange(len(slots)))
        self.seqs.primed[np.array(draft.firsts, np.int64)] = True
        self._draft = Draft(0)
        return self.in_flight.begin(slots)

    def settle(self, sampled: SampledTokens, outcomes: Outcomes) -> list[Ended]:
        """The tokens of the eldest step under way are known, of samples that are `present`: those that count are kept,
        rows that failed are dropped, samples that finished leave. Returns the latter."""
        self.in_flight.end()
        drawing, keep = sampled.drawing, outcomes.keep
        self.seqs.settle(drawing, sampled.tokens, keep)
        for row in outcomes.failed:
            self.drop_row(row)
        ended = []
        for i, finish in outcomes.finished.items():
            slot, count = drawing.slots.item(i), drawing.before.item(i) + keep.item(i)
            if drawing.rows.item(i) not in outcomes.failed:
                ended.append(self.seqs.ended(slot, count, finish))
                self.finish(slot, count)
        return ended

    def finish(self, slot: int, tokens: int | None = None) -> None:
        """A sample is done, with all that it generated or the first `tokens` of it: its length is learned, its tail and
        what nobody else reads are released."""
        row, tokens = int(self.seqs.row[slot]), tokens or int(self.seqs.n_out[slot])
        self.lengths.add(int(self.lengths.groups[row]), tokens, cut=tokens >= self.requests.limit[row])
        self._leave(slot)

    def _leave(self, slot: int) -> None:
        """A sample that has started goes, from where it runs or from where it waits to go on."""
        if self.seqs.running[slot]:
            self.pool.give(self.seqs.take_pages(slot))
            self.kv.unpin(self._paths.pop(slot), done=True)
        else:
            self.waiting.drop(int(self.seqs.rank[slot]))
            self.kv.skip(self.kv.path(int(self.seqs.leaf[slot])))
        self.seqs.end(slot)
