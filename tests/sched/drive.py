"""Drives a scheduler with the fake runner, checks every step it hands out, and predicts the tokens without either."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import TypeVar

import numpy as np

from tests.books import check_books
from umbel import registry
from umbel.cache.pages import PagePool
from umbel.ir.forest import Forest
from umbel.ir.params import SamplingParams
from umbel.ir.sampled import Outcomes, SampledTokens
from umbel.ir.step import Sampling, Step, StepResult
from umbel.ir.workload import Workload
from umbel.plan.passes.prefix import build_forest
from umbel.runner.base import Runner, Wait, done, run_step
from umbel.runner.fake import FakeRunner
from umbel.sched import steering
from umbel.sched.lot import Lot
from umbel.sched.policies.policy import Policy
from umbel.sched.scheduler import Scheduler

VOCAB = 50
POLICIES = [
    Policy(queue=queue, keep=keep, admission=admission, max_running=cap, victim=victim)
    for victim in registry.names("victim")
    for queue in registry.names("queue")
    for keep in registry.names("keep")
    for admission, cap in (*((name, None) for name in registry.names("admission")), ("aggressive", 3))
]
OFTEN = POLICIES[::4]  # with every queue, keep rule and admission in them
RARELY = [policy for policy in POLICIES if policy not in OFTEN]
MIX, WORD = 0x9E3779B97F4A7C15, 2**64 - 1


@dataclass
class Job:
    """A workload with what a scheduler needs beside it; `outs` are tokens per sample, one figure per row."""

    prompts: Sequence[Sequence[int]]
    ns: Sequence[int]
    outs: Sequence[int]
    workload: Workload = field(init=False)
    forest: Forest = field(init=False)

    def __post_init__(self) -> None:
        params = [SamplingParams(n=n, temperature=1.0 if n > 1 else 0.0) for n in self.ns]
        self.workload = Workload.of(self.prompts, params)
        self.forest = build_forest(self.workload)

    @property
    def samples(self) -> set[tuple[int, int]]:
        """Every (row, sample) that must be answered."""
        return {(row, i) for row, n in enumerate(self.ns) for i in range(n)}

    def demand(self, page_size: int) -> int:
        """Pages that everything together would hold."""
        nodes = -(-(self.forest.end - self.forest.start) // page_size)
        return int(nodes.sum()) + sum(n * -(-out // page_size) for n, out in zip(self.ns, self.outs, strict=True))

    def largest_row(self, page_size: int) -> int:
        """Pages that the largest sample needs when it runs alone."""
        return max(self.row_pages(row, page_size) for row in range(len(self.ns)))

    def row_pages(self, row: int, page_size: int) -> int:
        """Pages of one sample of a row: each node of its path, and its tail, in whole pages."""
        pages, node = -(-self.outs[row] // page_size), int(self.forest.leaf[row])
        while node >= 0:
            pages += -(-int(self.forest.end[node] - self.forest.start[node]) // page_size)
            node = int(self.forest.parent[node])
        return pages


S = TypeVar("S", bound=Scheduler)


def scheduler_of(
    job: Job,
    n_pages: int,
    page_size: int,
    chunk: int,
    kind: type[S] = Scheduler,
    *,
    order: np.ndarray | None = None,
    policy: Policy | None = None,
    loose: int = 1,
) -> S:
    """A scheduler over a pool of its own; `loose` > 1: so many times further off are the limits, which none reaches."""
    ends = () if loose == 1 else (VOCAB,)
    scheduler = kind(PagePool(n_pages, page_size), chunk, policy)
    scheduler.add(Lot(job.workload, job.forest, (ends,) * len(job.prompts), np.array(job.outs) * loose, order))
    return scheduler


def fork(job: Job, scheduler: Scheduler, slot: int, n: int) -> tuple[Job, list[int]]:
    """`n` more rows that go on from where a sample is, with new sample numbers: the job with them, and their slots."""
    seqs, first = scheduler.seqs, len(job.ns)
    row, rows = int(seqs.row[slot]), list(range(first, first + n))
    scheduler.requests.repeat(row, rows, np.array(rows), streamed=False)
    ranks = steering.fork(scheduler.books, int(seqs.rank[slot]), rows)
    same = [[*part, *[part[row]] * n] for part in (job.prompts, job.ns, job.outs)]
    return Job(*same), [seqs.slot_of[rank] for rank in ranks]


def apply(scheduler: Scheduler, result: StepResult) -> np.ndarray:
    """Take in the result of the step last returned; the slots that got a token, as in its samples."""
    drawing = scheduler.advance()
    sampled = SampledTokens(drawing, result)
    scheduler.settle(sampled, Outcomes.of(sampled))
    return drawing.slots


@dataclass
class Run:
    """What happened: tokens per (row, sample), rows reported as unfit, how many steps, preemptions by (row, sample)."""

    scheduler: Scheduler
    tokens: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)
    steps: int = 0
    rows_run: int = 0
    fresh_run: int = 0
    idle: int = 0  # most steps in a row without a new token


def drive(
    job: Job,
    n_pages: int,
    page_size: int,
    chunk: int,
    *,
    runner: Runner | None = None,
    scheduler: Scheduler | None = None,
    check: bool = True,
    seen: Callable[[Scheduler, Step, np.ndarray], None] | None = None,
) -> Run:
    """Run a job to its end; `seen` gets every step once its result has been applied."""
    scheduler = scheduler or scheduler_of(job, n_pages, page_size, chunk)
    runner = runner or FakeRunner(n_pages, page_size, VOCAB)
    run, quiet = Run(scheduler), 0
    while (step := scheduler.next()) is not None:
        if check:
            check_step(step, n_pages, chunk)
            check_from_scratch(scheduler, step)
        slots = apply(scheduler, run_step(runner, step))
        run.steps += 1
        run.rows_run += step.n_rows
        run.fresh_run += int(step.fresh.sum())
        quiet = 0 if len(slots) else quiet + 1
        run.idle = max(run.idle, quiet)
        if seen is not None:
            seen(scheduler, step, slots)
        finish_full(job, scheduler, slots, run.tokens)
        if check:
            check_books(scheduler)
    run.failed = {row for row, _ in scheduler.failed}
    check_books(scheduler)
    assert_clean(scheduler)
    return run


def finish_full(job: Job, scheduler: Scheduler, slots: np.ndarray, tokens: dict[tuple[int, int], list[int]]) -> None:
    """Finish the samples that have all their tokens, and note these."""
    seqs = scheduler.seqs
    for slot in slots[seqs.n_out[slots] == np.array(job.outs)[seqs.row[slots]]].tolist():
        tokens[int(seqs.row[slot]), int(seqs.sample[slot])] = seqs.out[slot, : seqs.n_out[slot]].tolist()
        scheduler.finish(slot)


def assert_clean(scheduler: Scheduler) -> None:
    """Nothing is held any more by anyone, except what a cache retains: that can all be had back."""
    kv, seqs = scheduler.kv, scheduler.seqs
    if kv.idle.keep.retains:
        assert kv.make_room(scheduler.pool.n_pages)
    assert scheduler.pool.free == scheduler.pool.n_pages
    assert not kv.n_pages.any() and not len(kv.nodes_in_use()) and not seqs.slot_of and not seqs.running.any()
    assert not any(kv.waiting) and not any(kv.users) and not kv.held.any()
    assert len(scheduler.seqs.runners()) == 0 and not scheduler.waiting._preempted


def expected(job: Job, row: int, sample: int) -> list[int]:
    """What the fake runner must answer, from the prompt alone: each token a hash of all (position, token) before it."""
    return continued(job, row, sample, [])


def continued(job: Job, row: int, sample: int, begin: Sequence[int]) -> list[int]:
    """The same for a sample that was forked when its answer began like this."""
    sequence, answer = list(job.prompts[row]), list(begin)
    total = sum(_mark(p, t) for p, t in enumerate(sequence + answer))
    salt = sample * MIX if job.ns[row] > 1 else 0
    while len(answer) < job.outs[row]:
        token = ((total + salt) * MIX >> 33) % VOCAB
        total += _mark(len(sequence) + len(answer), token)
        answer.append(token)
    return answer


def _mark(position: int, token: int) -> int:
    return ((position << 32 | token) * MIX & WORD) >> 2


class Zeros:
    """Answers 0 to everything, for tests of counts and of the scheduler's own time."""

    ahead = 0

    def start(self, step: Step) -> Wait:
        return done(StepResult(np.zeros(len(step.sampling), np.int64), np.zeros(len(step.sampling), bool)))

    def close(self) -> None: ...


def check_step(step: Step, n_pages: int, chunk: int) -> None:
    """Everything that ir.step promises about a step, by plain loops."""
    n_nodes, page_size = len(step.parent), step.page_size
    assert 1 <= step.n_rows <= chunk
    assert step.row_begin.tolist() == [0, *step.row_end[:-1].tolist()] and step.row_end[-1] == step.n_rows
    below = step.row_end.copy()
    for node in range(n_nodes - 1, -1, -1):
        if (parent := int(step.parent[node])) >= 0:
            below[parent] = max(below[parent], below[node])
    assert step.below_end.tolist() == below.tolist()
    assert (step.below_end > step.row_begin).all(), "a node without rows in its subtree has no business here"
    open_path: list[int] = []
    for node in range(n_nodes):
        parent = int(step.parent[node])
        while open_path and open_path[-1] != parent:
            open_path.pop()
        assert parent == -1 or open_path, "not depth-first: the parent's subtree was left before"
        assert step.start[node] == (step.end[parent] if parent >= 0 else 0)
        open_path.append(node)
        own = np.arange(step.row_begin[node], step.row_end[node])
        assert step.start[node] < step.end[node] and step.end[node] - len(own) >= step.start[node]
        assert step.positions[own].tolist() == list(range(int(step.end[node]) - len(own), int(step.end[node])))
    _check_pages(step, n_pages)
    sampling = step.sampling
    turned = step.positions if step.kept is None else step.kept.positions
    assert (turned[sampling.at] + 1 == sampling.positions).all(), "a token is drawn from another one's logits"
    assert set(np.flatnonzero(~step.fresh).tolist()) <= set(sampling.at.tolist())
    drawn = list(
        zip(*(column.tolist() for column in (sampling.keys, sampling.samples, sampling.positions)), strict=True)
    )
    assert len(drawn) == len(set(drawn)), "a sample draws twice for one position"
    assert (sampling.mask is None) == (sampling.masks is None)
    assert page_size >= 1


def check_from_scratch(scheduler: Scheduler, step: Step) -> None:
    """The step, which may have been made from the one before it, is what its agenda gives from scratch."""
    layout = scheduler._assembler.lay_out(scheduler._agenda)
    for one, other in ((step, layout.step), (step.sampling, layout.step.sampling)):
        for name in (f.name for f in fields(one)):
            ours, scratch = getattr(one, name), getattr(other, name)
            if isinstance(scratch, np.ndarray):
                assert ours.dtype == scratch.dtype and ours.tolist() == scratch.tolist(), name
            elif not isinstance(scratch, Sampling):
                assert ours == scratch, name


def _check_pages(step: Step, n_pages: int) -> None:
    """Every position has a page, and no page belongs to two nodes."""
    used = [
        page
        for node in range(len(step.parent))
        for page in step.pages[step.page_begin[node] :][: -(-int(step.end[node] - step.start[node]) // step.page_size)]
    ]
    assert len(used) == sum(-(-int(e - s) // step.page_size) for s, e in zip(step.start, step.end, strict=True))
    assert len(set(used)) == len(used) and all(0 <= page < n_pages for page in used)
    assert len(set(step.pages.tolist())) == len(step.pages)
