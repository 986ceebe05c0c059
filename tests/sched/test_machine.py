"""Random lives of a scheduler: steps, early stops, aborts, pools too small; all invariants hold after each move."""

from __future__ import annotations

import os

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.books import check_books
from tests.sched.drive import POLICIES, VOCAB, Job, apply, assert_clean, check_step, expected, scheduler_of
from umbel.runner.base import run_step
from umbel.runner.fake import FakeRunner
from umbel.sched.policies.policy import Policy

# CI takes 300, a release 2000, a night 100000.
EXAMPLES = int(os.environ.get("UMBEL_MACHINE_EXAMPLES", "100"))
MOVES = 50


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    """Prompts that share beginnings at random depths, some equal, some prefixes of others."""
    bases = draw(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=24), min_size=1, max_size=3))
    rows = []
    for _ in range(draw(st.integers(1, 10))):
        base = draw(st.sampled_from(bases))
        cut = draw(st.integers(1, len(base)))
        own = draw(st.lists(st.integers(0, 2), max_size=6))
        rows.append((base[:cut] + own, draw(st.sampled_from((1, 1, 1, 2, 3))), draw(st.integers(1, 14))))
    return Job(*zip(*rows, strict=True))


class SchedulerLife(RuleBasedStateMachine):
    """One scheduler against a model that knows nothing of pages: which samples are open, and their next tokens."""

    @initialize(
        job=jobs(), chunk=st.sampled_from((1, 2, 5, 16, 200)), page_size=st.sampled_from((1, 2, 4)), data=st.data()
    )
    def begin(self, job: Job, chunk: int, page_size: int, data: st.DataObject) -> None:
        least, most = 1, job.demand(page_size) + 1
        self.job, self.chunk, self.page_size = job, chunk, page_size
        self.n_pages = data.draw(st.one_of(st.integers(least, most), st.just(job.largest_row(page_size))))
        rows = range(len(job.ns))
        order = data.draw(st.none() | st.permutations(rows).map(lambda found: np.array(found, np.int64)))
        policy, loose = data.draw(st.just(Policy()) | st.sampled_from(POLICIES)), data.draw(st.sampled_from((1, 30)))
        self.scheduler = scheduler_of(job, self.n_pages, page_size, chunk, order=order, policy=policy, loose=loose)
        self.runner = FakeRunner(self.n_pages, page_size, VOCAB)
        self.answers = {key: expected(job, *key) for key in job.samples}
        self.open = set(job.samples)
        self.done = False
        self._leave_out_unfit()

    @rule(times=st.integers(1, 8))
    def step(self, times: int) -> None:
        for _ in range(times):
            self._step()

    @precondition(lambda self: not self.done and self.scheduler.seqs.running.any())
    @rule(data=st.data())
    def stop_early(self, data: st.DataObject) -> None:
        """A running sample ends before its limit, as at a stop string."""
        slot = data.draw(st.sampled_from(self.scheduler.seqs.runners().tolist()))
        seqs = self.scheduler.seqs
        self.open.remove((int(seqs.row[slot]), int(seqs.sample[slot])))
        self.scheduler.finish(slot)

    @precondition(lambda self: not self.done and self.open)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        """A row is abandoned: waiting, running or preempted."""
        row = data.draw(st.integers(0, len(self.job.ns) - 1))
        self.scheduler.drop_row(row)
        self.open = {key for key in self.open if key[0] != row}

    @invariant()
    def counts_agree(self) -> None:
        check_books(self.scheduler)
        seqs, kv = self.scheduler.seqs, self.scheduler.kv
        started = {(int(seqs.row[s]), int(seqs.sample[s])) for s in seqs.slot_of.values()}
        assert started <= self.open
        leaves = [int(self.job.forest.leaf[row]) for row, _ in self.open]
        for node in range(self.job.forest.n_nodes):
            below = sum(node <= leaf < self.job.forest.subtree_end[node] for leaf in leaves)
            if kv.labels.low[node] < 0 or kv.slot[node] >= 0:  # it is gone, and its number may be a tip's now
                assert not below
                continue
            assert kv.waiting[node] == below, "samples below a node are counted wrongly: it is freed too soon or never"
            assert not kv.n_pages[node] or below or self.scheduler.policy.keep == "lru"

    def teardown(self) -> None:
        for _ in range(20_000):
            if not hasattr(self, "job") or self.done:
                return
            self._step()
        raise AssertionError("no end after 20,000 steps")

    def _leave_out_unfit(self) -> None:
        for row, _ in self.scheduler.failed:
            assert self.job.row_pages(row, self.page_size) > self.n_pages, "reported as unfit, but it fits alone"
            self.open = {key for key in self.open if key[0] != row}
        self.scheduler.failed.clear()

    def _step(self) -> None:
        if self.done:
            return
        step = self.scheduler.next()
        self._leave_out_unfit()
        if step is None:
            assert not self.open
            assert_clean(self.scheduler)
            self.done = True
            return
        check_step(step, self.n_pages, self.chunk)
        slots = apply(self.scheduler, run_step(self.runner, step))
        seqs = self.scheduler.seqs
        for slot in slots.tolist():
            key, n_out = (int(seqs.row[slot]), int(seqs.sample[slot])), int(seqs.n_out[slot])
            assert seqs.out[slot, : seqs.n_out[slot]].tolist() == self.answers[key][:n_out]
            if n_out == len(self.answers[key]):
                self.open.remove(key)
                self.scheduler.finish(slot)


TestSchedulerLife = SchedulerLife.TestCase
TestSchedulerLife.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=MOVES,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
