"""The only loop brain: decodes first, then prompts in plan order, under a token budget and a pool of pages.

Each call of `next` decides one step: running samples extend their tips (1), prompts of running samples go on (2), and
samples are admitted in plan order while budget and pages last (3). When pages run out, prompts that nobody runs on are
evicted; if that is not enough the sample that is last in plan order gives its tip up and is computed again later.
Which sample is next, what stays in the pool and what may start are rules of a Policy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from umbel.cache.graft import graft
from umbel.cache.pages import PagePool
from umbel.cost.lengths import LengthBook
from umbel.ir.sampled import Drawing, Ended, Outcomes, SampledTokens
from umbel.ir.step import Step
from umbel.sched.agenda import Agenda
from umbel.sched.assemble import Assembler
from umbel.sched.in_flight import InFlight
from umbel.sched.lot import Lot
from umbel.sched.policies.admission import Books, Candidate
from umbel.sched.policies.build import build_admission, build_cache, build_queue, follows_nodes
from umbel.sched.policies.policy import Policy
from umbel.sched.request_table import RequestTable
from umbel.sched.sequences import Sequences
from umbel.sched.unfit import never_fitting

Ints = NDArray[np.int64]


class Scheduler:
    """Decides steps over the rows that were added; `failed` collects (row, reason) of rows that can never fit the pool.

    A step computes at most `chunk` tokens. `lengths` is what is known of how long answers are; it learns from every
    sample that ends. Counters: `preemptions`, of `evicted_rows` different rows; prompt tokens computed for the first
    time, and tokens computed again; `peak_pages` and `peak_running` of any step; `occupied_pages`, the pages in use
    (cached ones without a user left out) summed over `steps`.
    """

    def __init__(self, pool: PagePool, chunk: int, policy: Policy | None = None, lengths: LengthBook | None = None):
        self.pool = pool
        self.chunk = chunk
        self.policy = policy = policy or Policy()
        self.requests = RequestTable()
        self.kv = build_cache(policy, pool)
        self.seqs = Sequences()
        self.waiting = build_queue(policy, self.kv)
        self.lengths = lengths or LengthBook()
        books = Books(self.kv, self.seqs, self.lengths, self.requests, policy.overflow)
        self.admission = build_admission(policy, books)
        self.failed: list[tuple[int, str]] = []
        self.steps = self.preemptions = self.computed_tokens = self.recomputed_tokens = 0
        self.peak_pages = self.peak_running = self.occupied_pages = 0
        self._evicted: set[int] = set()  # rows that were ever preempted
        self.planned_tokens = 0  # of all prompts, shared runs once
        self._agenda, self.in_flight = Agenda(0), InFlight(self.seqs, self.requests)
        self._assembler = Assembler(self.seqs, self.kv, self.requests)

    def add(self, lot: Lot) -> int:
        """More rows, numbered on from those that are there; returns the number of the first. Rows that the order of the
        lot leaves out never run."""
        first, forest = len(self.requests), lot.forest
        order = forest.order if lot.order is None else lot.order
        self.requests.extend(lot)
        samples, run = self.requests.n[first:], np.zeros(len(lot.workload), np.int64)
        run[order] = samples[order]
        if not follows_nodes(self.policy, forest, order):
            self.kv.idle.by_use()
        graft(self.kv, lot.workload, forest, run)
        self.planned_tokens += forest.n_tokens
        self.waiting.extend(order, samples)
        self.lengths.add_rows(lot.row_groups, lot.templates)
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
            agenda = Agenda(self.chunk)
            self._extend_tips(agenda)
            self._continue_prompts(agenda)
            self._admit(agenda)
            if not agenda.empty:
                break
            if self.in_flight or not self._drop_unfit():
                return None
        self._agenda = agenda
        self._note()
        return self._assembler.step(agenda)

    def _note(self) -> None:
        """Count what the step holds."""
        self.steps += 1
        self.peak_pages = max(self.peak_pages, self.pool.used)
        self.peak_running = max(self.peak_running, self.seqs.n_running)
        self.occupied_pages += self.pool.used - self.kv.idle.pages

    def _extend_tips(self, agenda: Agenda) -> None:
        """(1) Every primed sample goes on, as far as the budget reaches; pages are found or victims are."""
        while True:
            slots = self.seqs.runners()
            slots = self.in_flight.known(slots[self.seqs.primed[slots]])
            tips = self.seqs.tip[slots]
            lacking = self.kv.length[tips] - self.kv.held[tips]
            wanted = np.where(self.seqs.n_out[slots] < self.seqs.max_out[slots], lacking, 0)  # full ones end soon
            granted = np.clip(agenda.budget - (np.cumsum(wanted) - wanted), 0, wanted)
            some = granted > 0
            slots, tips, granted = slots[some], tips[some], granted[some]
            missing = self.kv.missing(tips, granted)
            if self.kv.make_room(int(missing.sum())):
                break
            if not self._preempt_last():
                return
        self.kv.take(tips, missing)
        agenda.slots, agenda.tip_counts = slots, granted
        agenda.budget -= int(granted.sum())

    def _continue_prompts(self, agenda: Agenda) -> None:
        """(2) Samples that are not primed yet compute what their prompts still lack."""
        slots = self.seqs.runners()
        for slot in slots[~self.seqs.primed[slots]].tolist():
            self._advance(agenda, slot)

    def _advance(self, agenda: Agenda, slot: int) -> None:
        """Move one unprimed sample on: its path top down, then the first token of its tip or the tip that it lost."""
        tip = int(self.seqs.tip[slot])
        parent = self.kv.parent.item(tip)
        for node in self.kv.path(parent):
            lacking = self.kv.length.item(node) - self.kv.held.item(node)
            if lacking and node not in agenda.counts:
                if agenda.budget == 0:
                    return
                agenda.counts[node] = min(lacking, agenda.budget)
                agenda.budget -= agenda.counts[node]
            if lacking and agenda.counts[node] < lacking:
                return
        if self.kv.length[tip]:
            if len(self.in_flight.known(np.array([slot]))):
                self._rebuild_tip(agenda, slot, tip)
            return
        if parent not in agenda.counts and parent not in agenda.refeed:
            if agenda.budget == 0:
                return
            agenda.refeed[parent] = None
            agenda.budget -= 1
        agenda.firsts.append(slot)

    def _rebuild_tip(self, agenda: Agenda, slot: int, tip: int) -> None:
        """Compute a preempted tip again; from then on the sample is like any other."""
        tokens = min(agenda.budget, self.kv.length.item(tip))
        at = np.array([tip])
        short = self.kv.missing(at, np.array([tokens]))
        if tokens == 0 or not self.kv.make_room(int(short.sum())):
            return
        self.kv.take(at, short)
        self.seqs.primed[slot] = True
        agenda.add_tip(slot, tokens)

    def _admit(self, agenda: Agenda) -> None:
        """(3) Start waiting samples in their order; one that costs no tokens now (a twin) may start without budget."""
        self.admission.begin()
        most = self.policy.max_running
        while (rank := self.waiting.first()) is not None and (most is None or self.seqs.n_running < most):
            slot = self.seqs.slot_of.get(rank, -1)
            sample = self._candidate(rank, slot)
            parent = sample.path[-1]
            free_ride = sample.n_out == 0 and (parent in agenda.refeed or self._completes(agenda, parent))
            if agenda.budget == 0 and not free_ride:
                return
            # Alone, it may try with what there is.
            fits = self.admission.admits if self.seqs.n_running else self.admission.fits_now
            if not fits(sample):
                return
            self._advance(agenda, self._start(rank, slot))

    def _candidate(self, rank: int, slot: int) -> Candidate:
        """The waiting sample, as a rule of admission looks at it; `slot` is -1 if it never started."""
        row = int(self.waiting.rows[rank])
        limit = self.requests.limit.item(row)
        if slot < 0:
            return Candidate(row, self.kv.path(self.kv.leaf.item(row)), 0, 0, limit)
        seqs = self.seqs
        path = self.kv.path(self.kv.parent.item(seqs.tip.item(slot)))
        return Candidate(row, path, seqs.n_out.item(slot), seqs.losses.item(slot), limit)

    def _completes(self, agenda: Agenda, node: int) -> bool:
        return agenda.counts.get(node, -1) == self.kv.length.item(node) - self.kv.held.item(node)

    def _start(self, rank: int, slot: int = -1) -> int:
        """Pin the path and give the sample a slot (its old one when it was preempted)."""
        self.waiting.take(rank)
        if slot < 0:
            row, sample = int(self.waiting.rows[rank]), int(self.waiting.samples[rank])
            leaf = self.kv.leaf.item(row)
            prompt_len = self.kv.start.item(leaf) + self.kv.length.item(leaf)
            slot = self.seqs.start(rank, row, sample, prompt_len, self.requests.limit.item(row))
            self.seqs.tip[slot] = self.kv.grow(leaf, slot)
        self.kv.enter(self.seqs.tip.item(slot))
        self.seqs.resume(slot)
        return slot

    # -- giving up -----------------------------------------------------------------------------------------------

    def _preempt_last(self) -> bool:
        """Take the pages of the running sample that is last in plan order; False if it is the only one."""
        slots = self.seqs.runners()
        if len(slots) < 2:
            return False
        slot = int(slots[-1])
        self.kv.leave(self.seqs.tip.item(slot), done=False)
        self.seqs.pause(slot)
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
        path = self.kv.path(self.kv.leaf.item(row))
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
        agenda, seqs, kv = self._agenda, self.seqs, self.kv
        self._compute_runs(agenda)
        slots, tips = agenda.slots, seqs.tip[agenda.slots]
        reaches = kv.compute(tips, agenda.tip_counts) == kv.length[tips]
        if not reaches.all():
            slots, tips = slots[reaches], tips[reaches]
        # A tip that reaches its end feeds one token for the first time.
        self.recomputed_tokens += len(agenda.refeed) + int(agenda.tip_counts.sum()) - len(slots)
        if agenda.firsts:
            firsts = np.array(agenda.firsts, np.int64)
            slots, tips = np.concatenate([slots, firsts]), np.concatenate([tips, seqs.tip[firsts]])
            seqs.primed[firsts] = True
        seqs.append(slots, -1 - np.arange(len(slots)))
        kv.extend(tips, 1)
        self._agenda = Agenda(0)
        return self.in_flight.begin(slots)

    def _compute_runs(self, agenda: Agenda) -> None:
        """The shared runs on the agenda are computed as far as it says."""
        if not agenda.counts:
            return
        nodes, counts = (np.fromiter(found, np.int64) for found in (agenda.counts, agenda.counts.values()))
        new = self.kv.compute_runs(nodes, counts)
        self.computed_tokens += new
        self.recomputed_tokens += int(counts.sum()) - new
        for node in agenda.counts:
            self.waiting.cached(node)

    def settle(self, sampled: SampledTokens, outcomes: Outcomes) -> list[Ended]:
        """The tokens of the eldest step under way are known, of samples that are `present`: those that count are kept,
        rows that failed are dropped, samples that finished leave. Returns the latter."""
        self.in_flight.end()
        drawing, keep = sampled.drawing, outcomes.keep
        for slot in self.seqs.settle(drawing, sampled.tokens, keep).tolist():
            self._recount(slot)
        for row in outcomes.failed:
            self.drop_row(row)
        ended = []
        for i, finish in outcomes.finished.items():
            slot, count = drawing.slots.item(i), drawing.before.item(i) + keep.item(i)
            if drawing.rows.item(i) not in outcomes.failed:
                ended.append(self.seqs.ended(slot, count, finish))
                self.finish(slot, count)
        return ended

    def _recount(self, slot: int) -> None:
        """Not one of a sample's tokens counts, or several: its tip has as many as are left. The last one is still to be
        fed, for the logits of the next."""
        tip, n_out = self.seqs.tip.item(slot), self.seqs.n_out.item(slot)
        length = n_out + self.seqs.prompt_len.item(slot) - self.kv.start.item(tip)
        self.kv.cut(tip, max(length - 1, 0))
        self.kv.length[tip] = length

    def finish(self, slot: int, tokens: int | None = None) -> None:
        """A sample is done, with all that it generated or the first `tokens` of it: its length is learned, its tip and
        what no other reads are released."""
        row, tokens = int(self.seqs.row[slot]), tokens or int(self.seqs.n_out[slot])
        self.lengths.add(int(self.lengths.groups[row]), tokens, cut=tokens >= self.requests.limit[row])
        self._leave(slot)

    def _leave(self, slot: int) -> None:
        """A sample that has started goes, from where it runs or from where it waits to go on."""
        tip = self.seqs.tip.item(slot)
        if self.seqs.running[slot]:
            self.kv.leave(tip, done=True)
        else:
            self.waiting.drop(self.seqs.rank.item(slot))
            self.kv.abandon(tip)
        self.seqs.end(slot)
