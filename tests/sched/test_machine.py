"""Random lives of a scheduler: steps, arrivals, forks, early stops, aborts, pools too small; all invariants hold after
each move."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.books import check_books
from tests.kv.window_runner import WindowRunner
from tests.sched.drive import (
    POLICIES,
    VOCAB,
    Job,
    apply,
    assert_clean,
    check_step,
    continued,
    expected,
    fork,
    scheduler_of,
)
from umbel.runner.base import run_step
from umbel.sched.lot import Lot, Standing
from umbel.sched.policies.policy import Policy

# CI takes 300, a release 2000, a night 100000.
EXAMPLES = int(os.environ.get("UMBEL_MACHINE_EXAMPLES", "40"))
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


def _standing(priorities: list[int]) -> Standing:
    """Rows of these priorities, of two tenants, due in another order than they came."""
    found = np.array(priorities, np.int64)
    return Standing(found, np.arange(len(found)) % 2, -found.astype(float) - np.arange(len(found)) % 3)


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
        if data.draw(st.booleans()):
            self.scheduler.reuse()
        self.runner = WindowRunner(self.n_pages, page_size, VOCAB)
        self.answers = {key: expected(job, *key) for key in job.samples}
        self.open = set(job.samples)
        self.forks: Counter[int] = Counter()
        self.loose, self.late = loose, 0  # rows that came later
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

    @rule(job=jobs(), data=st.data())
    def arrive(self, job: Job, data: st.DataObject) -> None:
        """More rows; the first of them may go on from a prompt with some of its answer, as the next turn of a talk."""
        if len(self.job.ns) > 40:
            return
        (row, sample), first = data.draw(st.sampled_from(sorted(self.answers))), len(self.job.ns)
        before = [*self.job.prompts[row], *self.answers[row, sample]]
        prompts = [before[: data.draw(st.integers(0, len(before)))] + list(job.prompts[0]), *job.prompts[1:]]
        job = Job(prompts, job.ns, job.outs)
        workload = replace(job.workload, keys=first + np.arange(len(prompts)))
        ends = () if self.loose == 1 else (VOCAB,)
        some = st.lists(st.integers(-1, 1), min_size=len(prompts), max_size=len(prompts))
        standing = data.draw(st.none() | some.map(_standing))
        limits = np.array(job.outs) * self.loose
        self.scheduler.add(Lot(workload, job.forest, (ends,) * len(prompts), limits, standing=standing))
        self.job = Job([*self.job.prompts, *prompts], [*self.job.ns, *job.ns], [*self.job.outs, *job.outs])
        added = {key for key in self.job.samples if key[0] >= first}
        self.answers |= {key: expected(self.job, *key) for key in added}
        self.open |= added
        self.done = False
        self.late += len(prompts)
        self._leave_out_unfit()

    @precondition(lambda self: not self.done and self.scheduler.seqs.running.any())
    @rule(data=st.data(), n=st.integers(1, 3))
    def fork(self, data: st.DataObject, n: int) -> None:
        """Others go on from where a running sample is; nothing is computed for it."""
        scheduler, seqs = self.scheduler, self.scheduler.seqs
        slot = data.draw(st.sampled_from(seqs.runners().tolist()))
        held, used = int(scheduler.kv.held.sum()), scheduler.pool.used
        self.job, slots = fork(self.job, scheduler, slot, n)
        assert (int(scheduler.kv.held.sum()), scheduler.pool.used) == (held, used)
        self.forks[int(seqs.row[slot])] += 1
        for each in slots:
            row, sample = int(seqs.row[each]), int(seqs.sample[each])
            self.answers[row, sample] = continued(self.job, row, sample, seqs.out[slot, : seqs.n_out[slot]].tolist())
            self.open.add((row, sample))
            self.forks[row] = self.forks[int(seqs.row[slot])]

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
        started = {(int(seqs.row[s]), int(seqs.sample[s])): int(seqs.tip[s]) for s in seqs.slot_of.values()}
        assert set(started) <= self.open
        waiting = [0] * kv.n_nodes
        for row, sample in self.open:
            end = started.get((row, sample), int(kv.leaf[row]))
            for node in kv.path(end):
                waiting[node] += 1
        assert kv.waiting == waiting, "samples below a node are counted wrongly: it is freed too soon or never"
        assert kv.idle.keep.retains or all(waiting[node] for node in np.flatnonzero(kv.n_pages))

    def teardown(self) -> None:
        for _ in range(20_000):
            if not hasattr(self, "job") or self.done:
                return
            self._step()
        raise AssertionError("no end after 20,000 steps")

    def _leave_out_unfit(self) -> None:
        for row, _ in self.scheduler.failed:
            cuts = self.forks[row] + self.late  # each may leave the rest of a page unused
            most = self.job.row_pages(row, self.page_size) + cuts
            assert most > self.n_pages, "reported as unfit, but it fits alone"
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
