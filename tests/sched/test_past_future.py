"""The predicted peak against a simulation, step by step, that counts pages one by one."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.books import check_books
from tests.sched.drive import Job, Zeros, apply, drive, fork
from umbel.cache.pages import PagePool
from umbel.cost.lengths import LengthBook, LengthCurve
from umbel.cost.survival import Survival
from umbel.runner.base import run_step
from umbel.sched.books import Candidate
from umbel.sched.lot import Lot
from umbel.sched.policies.forecast import Forecast, Runs, Samples
from umbel.sched.policies.past_future import PastFuture
from umbel.sched.policies.policy import Policy
from umbel.sched.scheduler import Scheduler


def scheduler(job: Job, pages: int, page_size: int, *, point: int | None = None, can_end: bool = False) -> Scheduler:
    """Past-Future over a chunk that never binds. `point`: answers of earlier runs all had that many tokens."""
    book = LengthBook(None if point is None else {"": LengthCurve.of(np.full(500, point))})
    limits = np.full(len(job.ns), 4000) if point is not None else np.array(job.outs)
    made = Scheduler(PagePool(pages, page_size), 100_000, lengths=book)
    made.add(Lot(job.workload, job.forest, [(2,) if can_end else () for _ in job.prompts], limits))
    return made


def pages_ahead(s: Scheduler, lengths: dict[int, int], candidate: int) -> int:
    """The most pages in use when every sample at work, and the candidate, runs to its length: by walking there."""
    kv, size = s.kv, s.pool.page_size
    at_work = {
        int(slot): (int(kv.parent[s.seqs.tip[slot]]), int(s.seqs.n_out[slot]), lengths[int(s.seqs.row[slot])])
        for slot in s.seqs.runners()
    }
    at_work[-1] = (int(kv.leaf[candidate]), 0, lengths[candidate])
    shared = {slot: int(kv.start[s.seqs.tip[slot]] - s.seqs.prompt_len[slot]) for slot in at_work if slot >= 0} | {
        -1: 0
    }
    reading = {slot: set(s.kv.path(leaf)) for slot, (leaf, _, _) in at_work.items()}
    waiting = list(s.kv.waiting)
    for path in reading.values():
        for node in path:
            waiting[node] -= 1  # those who are not at work
    held: set[int] = set().union(*reading.values())
    most, n_out = 0, {slot: n for slot, (_, n, _) in at_work.items()}
    while n_out:
        nodes = sum(-(-int(kv.length[v]) // size) for v in held)
        most = max(most, nodes + sum(-(-(n - shared[slot]) // size) for slot, n in n_out.items()))
        n_out = {slot: n + 1 for slot, n in n_out.items() if n + 1 < at_work[slot][2]}
        needed = set().union(*(reading[slot] for slot in n_out)) if n_out else set()
        held = {v for v in held if v in needed or waiting[v] > 0}
    return most


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    bases = draw(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=30), min_size=1, max_size=3))
    prompts = [
        draw(st.sampled_from(bases))[: draw(st.integers(1, 30))] + draw(st.lists(st.integers(0, 2), max_size=9))
        for _ in range(draw(st.integers(2, 12)))
    ]
    return Job(
        prompts, [1] * len(prompts), draw(st.lists(st.integers(1, 40), min_size=len(prompts), max_size=len(prompts)))
    )


@settings(max_examples=150)
@given(jobs(), st.sampled_from((1, 2, 5, 16)), st.integers(0, 100), st.booleans())
def test_with_certain_lengths_the_peak_is_that_of_the_simulation(
    job: Job, page_size: int, seed: int, by_curve: bool
) -> None:
    """Some samples at work at random ages, the others waiting; lengths are limits, or known from earlier runs."""
    rng = random.Random(seed)
    if by_curve:
        job = Job(job.prompts, job.ns, [max(job.outs)] * len(job.ns))
    s = scheduler(job, 4000, page_size, point=max(job.outs) if by_curve else None, can_end=by_curve)
    order = s.waiting.rows.tolist()
    started = rng.randrange(1, len(order))
    for rank in range(started):
        row = order[rank]
        slot = s.books.start(rank)
        s.seqs.n_out[slot] = rng.randrange(job.outs[row])
    row = order[started]
    rule = s.admit.admission
    assert isinstance(rule, PastFuture)
    candidate = Candidate(row, s.kv.path(int(job.forest.leaf[row])), 0, 0, int(s.requests.limit[row]))
    expected = pages_ahead(s, dict(enumerate(job.outs)), row)
    forecast = rule._foresee(candidate)
    assert forecast.peak(0.0) == pytest.approx(expected, abs=1e-6)
    assert forecast.peak(5.0) == pytest.approx(expected, abs=1e-6), "nothing is uncertain"


def forked(pages: int) -> tuple[Job, Scheduler]:
    """A row of 100 tokens that has been forked into five after 42, whose pages hold four tokens, and one that waits."""
    job = Job([[1] * 8], [1], [100])
    s = scheduler(job, pages, 4)
    for _ in range(42):
        step = s.next()
        assert step is not None
        (slot,) = apply(s, run_step(Zeros(), step)).tolist()
    job, _ = fork(job, s, slot, 4)
    last = Job([[2] * 4], [1], [8])
    s.add(Lot(last.workload, last.forest, [()], np.array(last.outs)))
    return Job([*job.prompts, *last.prompts], [*job.ns, 1], [*job.outs, 8]), s


def test_forks_hold_what_they_share_once() -> None:
    job, s = forked(1000)
    rule, row = s.admit.admission, len(job.outs) - 1
    assert isinstance(rule, PastFuture)
    expected = pages_ahead(s, dict(enumerate(job.outs)), row)
    candidate = Candidate(row, s.kv.path(int(s.kv.leaf[row])), 0, 0, 8)
    assert rule._foresee(candidate).peak(0.0) == pytest.approx(expected, abs=1e-6)
    assert expected == 2 + 11 + 5 * 15  # the prompt, the 41 tokens that are computed, and what each has to come


@pytest.mark.parametrize(("pages", "starts"), [(88, True), (87, False)])
def test_a_row_starts_beside_forks_that_leave_room(pages: int, starts: bool) -> None:
    """Beside five answers of 100 tokens that share nothing there would be room from 138 pages on."""
    _, s = forked(pages)
    s.next()
    assert s.seqs.n_running == 5 + starts


@settings(max_examples=60)
@given(jobs(), st.sampled_from((1, 4, 16)), st.integers(0, 100))
def test_with_certain_lengths_nobody_is_preempted(job: Job, page_size: int, percent: int) -> None:
    least = job.largest_row(page_size)
    pages = least + max(job.demand(page_size) - least, 0) * percent // 100
    s = scheduler(job, pages, page_size)
    run = drive(job, pages, page_size, 100_000, scheduler=s, runner=Zeros(), check=False)
    assert set(run.tokens) == job.samples
    assert s.preemptions == s.evicted_rows == 0


def test_uncertain_lengths_have_the_mean_and_the_spread_of_many_draws() -> None:
    """Samples of many ages below two shared runs; lengths drawn from those seen, given that they go on."""
    rng = np.random.default_rng(0)
    seen = np.sort(rng.integers(1, 200, 1000))
    n_out = rng.integers(0, 180, 40)
    book = LengthBook({"": LengthCurve.of(seen)})
    none = np.zeros(0, np.int64)
    curves = Survival.of(book, np.zeros(1, np.int64), none, none)
    samples = Samples(n_out, n_out, np.full(40, 199), np.zeros(40, np.int64), np.zeros(40, bool))
    # Nodes: one of its own for each sample (3 pages), one for the first ten (20), one for two in the middle (50).
    first, stop = np.append(np.arange(40), [0, 20]), np.append(np.arange(1, 41), [10, 22])
    runs = Runs(np.append(np.full(40, 3), [20, 50]), first, stop)
    forecast = Forecast(samples, runs, 7, curves, 8)
    drawn = np.stack([rng.choice(seen[seen > n], 4000) for n in n_out])
    for step, mean, variance in zip(forecast.steps, forecast._mean, forecast._variance, strict=True):
        alive = drawn > n_out[:, None] + step
        pages = (alive * (3 - (-(n_out[:, None] + step) // 8))).sum(0)
        pages = pages + 20 * alive[:10].any(0) + 50 * alive[20:22].any(0)
        assert mean == pytest.approx(pages.mean(), rel=0.02, abs=1)
        assert np.sqrt(variance) == pytest.approx(pages.std(), rel=0.25, abs=3)
    assert forecast.peak(0.0) == pytest.approx(7 + forecast._mean.max())
    assert forecast.peak(2.0) > forecast.peak(0.0) + 10


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 60)), min_size=3, max_size=12), st.sampled_from((1, 4, 16))
)
def test_samples_added_one_by_one_are_never_underestimated(ages: list[tuple[int, int]], page_size: int) -> None:
    """Adding is allowed to put an end off to the next step that is looked at, never to bring it forward."""
    curves = Survival.of(LengthBook(), *(np.zeros(k, np.int64) for k in (1, 0, 0)))

    def samples(part: list[tuple[int, int]]) -> Samples:
        n_out, more = (np.array(column) for column in zip(*part, strict=True))
        return Samples(n_out, n_out, n_out + more, np.zeros(len(part), np.int64), np.ones(len(part), bool))

    def runs(count: int) -> Runs:
        return Runs(np.full(count, 2), np.arange(count), np.arange(1, count + 1))

    whole = Forecast(samples(ages), runs(len(ages)), 0, curves, page_size)
    grown = Forecast(samples(ages[:2]), runs(2), 0, curves, page_size)
    for one in ages[2:]:
        grown.add(samples([one]), 2, 0)
    assert whole.peak(0.0) - 1e-6 <= grown.peak(0.0)
    if {more for _, more in ages[2:]} <= {more for _, more in ages[:2]}:
        assert whole.peak(0.0) == pytest.approx(grown.peak(0.0))


def answered(lengths: list[int], pages: int, *, limit: int, admission: str = "past-future") -> Scheduler:
    """Run rows that end by themselves at `lengths`, below a limit that none reaches."""
    job = Job([[1, 2, 3, 4, row % 40, row // 40] for row in range(len(lengths))], [1] * len(lengths), lengths)
    s = Scheduler(PagePool(pages, 16), 512, Policy(admission=admission))
    s.add(Lot(job.workload, job.forest, [(2,)] * len(lengths), np.full(len(lengths), limit)))
    done = 0
    while (step := s.next()) is not None:
        slots = apply(s, run_step(Zeros(), step))
        for slot in slots[s.seqs.n_out[slots] == np.array(lengths)[s.seqs.row[slots]]].tolist():
            s.finish(slot)
            done += 1
        if s.steps % 50 == 0:
            check_books(s)
    assert done == len(lengths) and s.pool.free == pages
    return s


def test_it_learns_from_the_rows_that_end() -> None:
    """Limits far beyond the answers: cautious at first, then as many at once as answers leave room for."""
    rng = random.Random(0)
    lengths = [rng.randint(20, 60) for _ in range(400)]
    learned = answered(lengths, 200, limit=900)
    assert learned.preemptions <= 8
    assert learned.steps < answered(lengths, 200, limit=900, admission="conservative").steps / 3


def test_rows_longer_than_all_before_them_get_through() -> None:
    """A hundred short answers, then long ones that the pool holds two of: what was learned is wrong, no row starves."""
    s = answered([5] * 150 + [700] * 12, 100, limit=4000)
    assert s.preemptions <= 40


def test_without_a_limit_that_means_anything_it_still_starts_several() -> None:
    """Limits of a whole context that the pool could not hold once: they must not leave it empty."""
    s = answered([300] * 40, 400, limit=100_000)
    assert s.peak_running >= 6 and s.preemptions == 0
