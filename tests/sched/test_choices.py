"""Which row: who starts, who waits and who steps back under every policy, against plain loops over the definitions.

test_policies and test_machine show that all is well with any choice; here it is about the choice itself.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
import pytest

from tests.parameters import few_of
from tests.sched.drive import POLICIES, Job, Zeros, drive, scheduler_of
from tests.sched.test_past_future import pages_ahead
from tests.sched.test_pool_sizes import PAGE, groups
from umbel.cache.pages import PagePool
from umbel.cost.lengths import LengthBook, LengthCurve
from umbel.ir.step import Step
from umbel.sched.books import Candidate
from umbel.sched.lot import Lot
from umbel.sched.policies.admission import Admission
from umbel.sched.policies.past_future import PastFuture
from umbel.sched.policies.policy import Policy
from umbel.sched.scheduler import Scheduler

EACH = pytest.mark.parametrize(
    "policy",
    few_of(POLICIES[::3], [policy for policy in POLICIES if policy not in POLICIES[::3]]),
    ids=lambda p: f"{p.queue}-{p.keep}-{p.admission}-{p.max_running}",
)
PLANNED = [p for p in POLICIES if p.queue == "plan"]
JOB = groups(0, 12)
TIGHT = max(JOB.demand(PAGE) // 4, JOB.largest_row(PAGE))


@dataclass
class Witness:
    """Looks at the running ranks after each step, and by them at what was chosen in between."""

    running: set[int] = field(default_factory=set)
    paused: set[int] = field(default_factory=set)
    begun: set[int] = field(default_factory=set)
    done: set[int] = field(default_factory=set)
    stepped_back: int = 0
    resumed: int = 0

    def look(self, s: Scheduler, step: Step, slots: np.ndarray) -> None:
        now = set(s.seqs.rank[s.seqs.runners()].tolist())
        waiting = {int(r) for r in getattr(s.waiting, "_paused", s.waiting._preempted)}  # of lines, or of one
        lost, stay = (self.running - now) & waiting, self.running & now
        if lost and stay:
            assert min(lost) > max(stay), "a row stepped back that was not the last in the plan"
        self.stepped_back += len(lost)
        back, new = now & self.paused, now - self.running - self.paused
        if back and waiting - lost:
            assert max(back) < min(waiting - lost), "a row came back before one that is ahead of it in the plan"
        if new and s.policy.queue == "plan":
            fresh = set(range(len(s.waiting.rows))) - self.begun - new
            assert not waiting - lost, "a row started while one that had stepped back waited"
            assert not fresh or max(new) < min(fresh), "a row started before one that is ahead of it in the plan"
        self.resumed += len(back)
        self.running, self.paused, self.begun = now, waiting, self.begun | now


@EACH
@pytest.mark.parametrize("loose", [1, 40])
def test_who_starts_and_who_steps_back(policy: Policy, loose: int) -> None:
    """The last in the plan steps back, the first of these comes back, and new rows start in the plan's order."""
    seen = 0
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(JOB.ns)) if seed else None
        scheduler = scheduler_of(JOB, TIGHT, PAGE, 64, order=order, policy=policy, loose=loose)
        witness = Witness()
        drive(JOB, TIGHT, PAGE, 64, scheduler=scheduler, runner=Zeros(), check=False, seen=witness.look)
        assert witness.stepped_back <= scheduler.preemptions
        seen += witness.stepped_back
    if policy.admission == "aggressive" and policy.max_running is None:
        assert seen > 20, "nothing was seen of what is tested here"


# -- admission ---------------------------------------------------------------------------------------------------------


def pages(tokens: int) -> int:
    return -(-tokens // PAGE)


GOALS = {
    "aggressive": None,
    "conservative": lambda made, lost, limit: limit,
    "headroom": lambda made, lost, limit: min(made + 32 * 4 ** min(lost, 8), limit),
}


def may_start(s: Scheduler, rule: str, candidate: Candidate) -> bool:
    """The rule in plain words: pages that are free, or can be had, hold what the sample needs now, what it may grow to,
    and what those that run may still grow to. Those that run are met as patiently as the candidate."""
    kv, seqs, goal = s.kv, s.seqs, GOALS[rule]
    lacking = sum(int(kv.sizes(np.array([n]))[0]) for n in candidate.path if not kv.n_pages[n])
    free = kv.reclaimable(candidate.path)
    if goal is None:
        return lacking + pages(max(candidate.n_out, 1)) <= free
    growth = pages(goal(candidate.n_out, candidate.losses, candidate.limit))
    for slot in seqs.runners().tolist():
        lost = max(int(seqs.losses[slot]), candidate.losses)
        upto = pages(goal(int(seqs.n_out[slot]), lost, int(seqs.max_out[slot])))
        growth += max(upto - int(kv.n_pages[seqs.tip[slot]]), 0)
    return lacking + growth <= free


class Judged(Admission):
    """A rule, each of whose answers is held against `may_start`; counts them."""

    def __init__(self, scheduler: Scheduler, rule: str):
        self._s, self._rule, self._inner = scheduler, rule, scheduler.admit.admission
        self.said = {True: 0, False: 0}

    def begin(self) -> None:
        self._inner.begin()

    def fits_now(self, candidate: Candidate) -> bool:
        return self._inner.fits_now(candidate)

    def admits(self, candidate: Candidate) -> bool:
        expected = may_start(self._s, self._rule, candidate)
        assert self._inner.admits(candidate) == expected, candidate
        self.said[expected] += 1
        return expected


@pytest.mark.parametrize("rule", GOALS)
@pytest.mark.parametrize("loose", [1, 40])
def test_a_rule_admits_whom_its_definition_admits(rule: str, loose: int) -> None:
    said = {True: 0, False: 0}
    for seed in range(4):
        job = groups(seed, 10)
        room = max(job.demand(PAGE) // (3 + seed), job.largest_row(PAGE))
        scheduler = scheduler_of(job, room, PAGE, 64, policy=Policy(admission=rule), loose=loose)
        scheduler.admit.admission = judge = Judged(scheduler, rule)
        drive(job, room, PAGE, 64, scheduler=scheduler, runner=Zeros(), check=False)
        said = {answer: n + judge.said[answer] for answer, n in said.items()}
    assert said[False] > 20 and (said[True] > 20 or (rule, loose) == ("conservative", 40)), said


class Foreseen(Judged):
    """Past-Future with certain lengths, against a walk token by token to the end of everyone at work.

    A refusal may stand for a page's worth of steps without being asked again, as long as no sample ends.
    """

    def __init__(self, scheduler: Scheduler, lengths: dict[int, int]):
        super().__init__(scheduler, "past-future")
        self._lengths, self._first = lengths, True
        self._step, self._refused, self._learned = 0, -(10**9), -1

    def begin(self) -> None:
        super().begin()
        self._first, self._step = True, self._step + 1

    def admits(self, candidate: Candidate) -> bool:
        s = self._s
        most = pages_ahead(s, self._lengths, candidate.row)
        learned, answer = s.lengths.ended, self._inner.admits(candidate)
        paused = learned == self._learned and self._step - self._refused < s.pool.page_size
        if answer:
            assert most <= s.pool.n_pages and not paused
        elif self._first and not paused:
            assert most > s.pool.n_pages
            self._refused, self._learned = self._step, learned
        elif not paused:
            self._refused, self._learned = self._step, learned  # not exact: further ones of a step may be overestimated
        self.said[answer] += 1
        self._first = False
        return answer


@pytest.mark.parametrize("seed", range(6))
def test_past_future_admits_whom_a_walk_to_the_end_has_room_for(seed: int) -> None:
    rng = random.Random(seed)
    prompts = [[g, *[7] * rng.randrange(1, 40), i] for i in range(30) for g in (rng.randrange(4),)]
    job = Job(sorted(prompts), [1] * 30, [rng.randrange(1, 90) for _ in range(30)])
    room = max(job.demand(PAGE) // 3, job.largest_row(PAGE))
    scheduler = scheduler_of(job, room, PAGE, 10_000)
    scheduler.admit.admission = judge = Foreseen(scheduler, dict(enumerate(job.outs)))
    drive(job, room, PAGE, 10_000, scheduler=scheduler, runner=Zeros(), check=False)
    assert judge.said[True] > 8 and judge.said[False] > 5 and scheduler.preemptions == 0


@dataclass
class Pauses(Admission):
    """Notes when Past-Future made a forecast, and when one ended in a refusal."""

    inner: PastFuture
    step: int = 0
    forecasts: int = 0  # in this step
    refused: tuple[int, int] | None = None  # step of the last refusal, and answers learned by then
    gaps: list[tuple[int, bool, int]] = field(default_factory=list)  # steps to the next forecast, anyone ended, running

    def begin(self) -> None:
        self.inner.begin()
        self.step, self.forecasts = self.step + 1, 0

    def fits_now(self, candidate: Candidate) -> bool:
        return self.inner.fits_now(candidate)

    def admits(self, candidate: Candidate) -> bool:
        learned, running = self.inner._book.ended, len(self.inner.seqs.runners())
        before = self.inner._forecast
        answer = self.inner.admits(candidate)
        if self.inner._forecast is not None and before is None and self.refused is not None:
            since, known = self.refused
            self.gaps.append((self.step - since, learned > known, running))
            self.refused = None
        if not answer and self.inner._forecast is not None:
            self.refused = self.step, learned
        return answer


@pytest.mark.parametrize("rows", [40, 700])
def test_after_a_refusal_it_is_not_asked_again_at_once(rows: int) -> None:
    """A forecast costs as much as many steps. Where no sample has ended since a refusal, the next is made a page's
    worth of steps later; else at once, but where very many run, some steps later."""
    page, rng = 16, random.Random(0)
    lengths = [rng.randrange(40, 90) if rows > 100 else rng.choice((60, 75, 90)) for _ in range(2 * rows)]
    job = Job([[r % 50, r // 50] for r in range(2 * rows)], [1] * (2 * rows), lengths)
    scheduler = scheduler_of(job, rows * 5, page, 100_000)
    assert isinstance(scheduler.admit.admission, PastFuture)
    scheduler.admit.admission = watched = Pauses(scheduler.admit.admission)
    drive(job, rows * 5, page, 100_000, scheduler=scheduler, runner=Zeros(), check=False)
    quiet = [gap for gap, ended, _ in watched.gaps if not ended]
    assert all(gap == page for gap in quiet) and (quiet or rows > 100)
    after_ends = [(gap, min(page // 4, running // 128)) for gap, ended, running in watched.gaps if ended]
    assert all(gap >= max(several, 1) for gap, several in after_ends) and len(after_ends) > 3
    if rows > 100:  # here somebody ends in every step
        assert max(several for _, several in after_ends) >= 3 and any(gap == several for gap, several in after_ends)


def test_one_that_was_preempted_before_is_started_with_more_care() -> None:
    """The smallest pool that lets it start is larger after it was preempted once, and larger still after twice."""
    rng = np.random.default_rng(0)
    job = Job([[i, 1, 2] for i in range(40)], [1] * 40, [200] * 40)
    curve = LengthCurve.of(np.sort(rng.integers(1, 200, 1000)))
    least = []
    for losses in (0, 1, 2):
        needed = next(pool for pool in range(500, 2_500, 5) if _admits_the_last(job, pool, curve, losses))
        assert all(_admits_the_last(job, pool, curve, losses) for pool in range(needed, needed + 100, 10))
        least.append(needed)
    assert least[0] < least[1] < least[2]


def _admits_the_last(job: Job, pool: int, curve: LengthCurve, losses: int) -> bool:
    """Whether the last row may start beside the others, which have just begun, answers being as long as in `curve`."""
    s = Scheduler(PagePool(pool, PAGE), 1_000, lengths=LengthBook({"": curve}))
    s.add(Lot(job.workload, job.forest, [(2,)] * len(job.ns), np.full(len(job.ns), 199)))
    s.admit.admission.begin()
    *others, last = s.waiting.rows.tolist()
    for rank in range(len(others)):
        s.books.start(rank)
    return s.admit.admission.admits(Candidate(last, s.kv.path(int(job.forest.leaf[last])), 0, losses, 199))
