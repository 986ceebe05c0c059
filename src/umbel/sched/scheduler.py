"""The only loop brain: fills an agenda phase by phase, under a token budget and a pool of pages, and makes it a step.

By default running samples extend their tips first, then prompts that are under way go on, then samples are admitted in
plan order; what is left of the budget may go to tokens that are proposed. When pages run out, runs that no sample reads
at present are evicted; if that is not enough a victim gives its tip up and is computed again later. Which sample is
next, what stays in the pool, what may start and who gives way are rules of a Policy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from umbel.cache.graft import graft
from umbel.cache.keep import LeastRecent
from umbel.cache.pages import PagePool
from umbel.cache.prefix import PrefixIndex
from umbel.cost.lengths import LengthBook
from umbel.ir.sampled import Drawing, Ended, Outcomes, SampledTokens
from umbel.ir.step import Step
from umbel.sched.agenda import Agenda
from umbel.sched.assemble import Assembler
from umbel.sched.lot import Lot
from umbel.sched.phases.forced import Ask, Forced
from umbel.sched.phases.speculate import Speculate
from umbel.sched.policies.build import build_books, build_phases, follows_nodes
from umbel.sched.policies.policy import Policy
from umbel.sched.scoring import want_means, want_scores
from umbel.sched.stage import computed
from umbel.sched.unfit import never_fitting, unfit_row

Ints = NDArray[np.int64]


class Scheduler:
    """Decides steps over the rows that were added; `failed` collects (row, reason) of rows that can never fit the pool.

    A step computes at most `chunk` tokens, which `phases` give out in turn. `lengths` is what is known of how long
    answers are; it learns from every sample that ends. `speculate` is the phase that proposes tokens, None where no one
    does. Counters: `steps`; prompt tokens computed for the first time, and tokens computed again; `peak_pages` and
    `peak_running` of any step; `occupied_pages`, the pages in use (cached ones without a user left out) of all steps.
    """

    def __init__(
        self,
        pool: PagePool,
        chunk: int,
        policy: Policy | None = None,
        lengths: LengthBook | None = None,
        speculate: Speculate | None = None,
    ):
        self.pool = pool
        self.chunk = chunk
        self.policy = policy = policy or Policy()
        self.books = books = build_books(policy, pool, lengths or LengthBook())
        self.kv, self.seqs, self.waiting, self.requests = books.kv, books.seqs, books.waiting, books.requests
        self.in_flight, self.lengths = books.in_flight, books.lengths
        self.admit, phases = build_phases(policy, books)
        self.phases = [*phases, *([speculate] if speculate else ())]
        self.speculate = speculate
        self.failed: list[tuple[int, str]] = []
        self.steps = self.computed_tokens = self.recomputed_tokens = 0
        self.peak_pages = self.peak_running = self.occupied_pages = 0
        self.planned_tokens = 0  # of all prompts, shared runs once
        self._agenda = Agenda(0)
        self._assembler = Assembler(self.seqs, self.kv, self.requests)

    def add(self, lot: Lot) -> int:
        """More rows, numbered on from those that are there; returns the number of the first. Rows that the order of the
        lot leaves out never run."""
        first, forest = len(self.requests), lot.forest
        order = forest.order if lot.order is None else lot.order
        self.requests.extend(lot)
        samples, run = self.requests.n[first : len(self.requests)], np.zeros(len(lot.workload), np.int64)
        run[order] = samples[order]
        if self.policy.keep == "auto" and not follows_nodes(self.policy, forest, order):
            self.kv.idle.by_use()
        graft(self.kv, lot.workload, forest, run, lot.means)
        want_scores(self.kv, self.requests, order + first)
        want_means(self.kv, lot.means, order, first)
        self.planned_tokens += forest.n_tokens
        self.waiting.extend(order, samples, self.requests.first_sample[first : first + len(samples)])
        self.lengths.add_rows(lot.row_groups, lot.templates)
        for row, reason in never_fitting(self.requests, order + first, self.kv):
            self.failed.append((row, reason))
            self.drop_row(row)
        return first

    def force(self, ask: Ask) -> None:
        """From now on, samples feed together what `ask` says is certain of their answers."""
        self.phases.insert(1, Forced(ask))

    def reuse(self) -> None:
        """From now on, rows that are added find their beginnings among all runs that are held or planned; prompts and
        answers that are done stay until their pages are wanted, what was read least recently going first, and what rows
        wait for last, unless the policy names another rule."""
        if self.policy.keep == "auto":
            self.kv.idle.follow(LeastRecent(retains=True), spare=self.kv.waiting)
        self.kv.index = PrefixIndex(self.kv)

    def admit_no_more(self) -> None:
        """From now on no sample starts that waits; those that run go on."""
        self.admit.max_running = 0

    @property
    def preemptions(self) -> int:
        """How often a sample gave its pages up."""
        return self.books.preemptions

    @property
    def evicted_rows(self) -> int:
        """Rows of which a sample was preempted at least once."""
        return len(self.books.evicted)

    # -- deciding ------------------------------------------------------------------------------------------------------

    def next(self) -> Step | None:
        """The next step; None when every sample is done (or the rest has been reported in `failed`), or when nothing
        can be decided before the step under way is settled."""
        while True:
            agenda = Agenda(self.chunk)
            for phase in self.phases:
                phase.fill(agenda, self.books)
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

    def _drop_unfit(self) -> bool:
        """Nothing could be scheduled: others step back, or the one row in front is reported as one that cannot fit;
        False when none is left."""
        if self.books.give_way():
            return True
        found = unfit_row(self.books)
        if found is None:
            return False
        self.failed.append(found)
        self.drop_row(found[0])
        return True

    def drop_row(self, row: int) -> None:
        """Abandon every sample of a row, in whatever state it is."""
        for phase in self.phases:
            phase.drop_row(self.books, row)
        self.books.drop_row(row)

    # -- what happened -------------------------------------------------------------------------------------------

    def advance(self) -> Drawing:
        """The step last returned is under way, and all that it leaves is known but its draws: until `settle`, which
        must come before the step after the next is decided, the token of a sample's last draw i is the placeholder
        -1 - i."""
        agenda, seqs, kv = self._agenda, self.seqs, self.kv
        self._compute_runs(agenda)
        slots, tips, drafted = agenda.slots, seqs.tip[agenda.slots], agenda.drafted
        reaches = kv.compute(tips, agenda.tip_counts) == kv.length[tips]
        if not reaches.all():
            slots, tips = slots[reaches], tips[reaches]
            drafted = None if drafted is None else drafted[reaches]
        # A tip that reaches its end feeds one token for the first time, and those that are proposed.
        first_fed = len(slots) + (0 if drafted is None else int(drafted.sum()))
        self.recomputed_tokens += len(agenda.refeed) + int(agenda.tip_counts.sum()) - first_fed
        if agenda.firsts:
            firsts = np.array(agenda.firsts, np.int64)
            slots, tips = np.concatenate([slots, firsts]), np.concatenate([tips, seqs.tip[firsts]])
            drafted = None if drafted is None else np.concatenate([drafted, np.zeros_like(firsts)])
            seqs.primed[firsts] = True
        kv.extend(tips, 1)
        self._agenda = Agenda(0)
        return self.in_flight.begin(slots, drafted)

    def _compute_runs(self, agenda: Agenda) -> None:
        """The shared runs on the agenda are computed as far as it says."""
        if not (counted := computed(agenda.counts, agenda.passing)):
            return
        for wanted in (self.kv.scored, self.kv.scored.summed):
            if wanted.open:
                wanted.begin(counted, self.kv.held, self.kv.seen)
        nodes, counts = (np.fromiter(found, np.int64) for found in (counted, counted.values()))
        new = self.kv.compute_runs(nodes, counts)
        self.computed_tokens += new
        self.recomputed_tokens += int(counts.sum()) - new
        for node in counted:
            self.waiting.cached(node)

    def settle(self, sampled: SampledTokens, outcomes: Outcomes) -> list[Ended]:
        """The tokens of the eldest step under way are known, of samples that are `present`: those that count are kept,
        rows that failed are dropped, samples that finished leave. Returns the latter."""
        self.in_flight.end()
        drawing, keep = sampled.drawing, outcomes.keep
        for phase in self.phases:
            phase.learn(self.books, sampled, keep)
        cut = self.seqs.settle(drawing, sampled.tokens, keep)
        if len(cut):
            self._recount(cut)
        for row in outcomes.failed:
            self.drop_row(row)
        done = [i for i in outcomes.finished if drawing.rows.item(i) not in outcomes.failed]
        if not done:
            return []
        slots, counts = drawing.slots[done], drawing.before[done] + keep[done]
        each = zip(slots.tolist(), counts.tolist(), (outcomes.finished[i] for i in done), strict=True)
        ended = [self.seqs.ended(*one) for one in each]
        self._finish(slots, counts)
        return ended

    def _recount(self, slots: Ints) -> None:
        """Not all tokens of some samples count: their tips have as many as are left. The last one is still to be fed,
        for the logits of the next."""
        tips = self.seqs.tip[slots]
        lengths = self.seqs.n_out[slots] + self.seqs.prompt_len[slots] - self.kv.start[tips]
        self.kv.cut(tips, np.maximum(lengths - 1, 0))
        self.kv.length[tips] = lengths

    def finish(self, slot: int) -> None:
        """A sample is done, with all that it generated: its length is learned, unless its row wants none or only its
        limit could end it, and what no other reads is released, or kept as the rule of the tree says."""
        self._finish(np.array([slot]), self.seqs.n_out[[slot]])

    def _finish(self, slots: Ints, counts: Ints) -> None:
        """Samples are done with the first `counts` of their tokens."""
        for phase in self.phases:
            phase.finish(self.books, slots, counts)
        for slot, tokens in zip(slots.tolist(), counts.tolist(), strict=True):
            row, most = self.seqs.row.item(slot), self.seqs.max_out.item(slot)
            given = max(most - self.requests.limit.item(row), 0)  # tokens that were appended, not drawn
            if tokens > given and self.requests.certain.item(row):
                self.lengths.pass_by()
            elif tokens > given:
                self.lengths.add(self.lengths.groups.item(row), tokens - given, cut=tokens >= most)
            self.books.finish(slot, tokens)
