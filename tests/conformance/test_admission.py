"""Every rule of admission of the catalogue: what it admits fits, and the planner's walk follows it as the loop does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from tests.parameters import few_of
from tests.plan.loops import ZeroRunner, loop_of
from tests.plan.test_against_runs import WORKLOADS
from tests.plan.workloads import MACHINE, SPEC, groups, run
from tests.sched.drive import Job, Zeros, drive, scheduler_of
from umbel import registry
from umbel.config import EngineConfig
from umbel.plan.planner import make_plan
from umbel.plan.walk.clock import Limits, walk
from umbel.plan.walk.samples import WalkSamples
from umbel.sched.books import Candidate
from umbel.sched.policies.admission import Admission
from umbel.sched.policies.policy import Policy
from umbel.sched.scheduler import Scheduler

EACH = pytest.mark.parametrize("rule", registry.names("admission"))
HARD = ("one group", "unrelated", "long answers", "uneven", "mixed", "long tail", "levels")
MOST_PREEMPTIONS = {"past-future": 0, "conservative": 0, "headroom": 13, "aggressive": 90}  # in the runs below
OTHERS = 0.15  # how near the walk is to other packages' rules: it lets tokens flow, which shows where few rows run
PAGE = 16


@pytest.mark.parametrize("kv_tokens", few_of([1000], [2000, 4000]))
@pytest.mark.parametrize("chunk", [128, 512])
@pytest.mark.parametrize("name", HARD)
@EACH
def test_the_walk_starts_rows_by_the_scheduler_s_rule(rule: str, name: str, chunk: int, kv_tokens: int) -> None:
    """In pools that bind: as many steps, as much KV, unless rows are preempted.

    What is computed again for that the walk leaves out, so there it is held from above, and loosely from below. Under
    the two rules that know the lengths no row is preempted.
    """
    workload = WORKLOADS[name]()
    config = EngineConfig("tiny", chunk=chunk, kv_tokens=kv_tokens, admission=rule, allow_lossy=True)
    plan = make_plan(workload, SPEC, config, MACHINE)
    loop = loop_of(workload, plan, ZeroRunner())
    assert all(output.error is None for output in loop.run())
    stats, expected = loop.stats(), plan.estimates
    assert stats.computed_prompt_tokens == expected.computed_prompt_tokens
    assert stats.output_tokens == expected.output_tokens
    near, near_kv = (0.05, 0.075) if rule in MOST_PREEMPTIONS else (OTHERS, OTHERS)
    assert expected.kv_peak_tokens == pytest.approx(stats.kv_peak_tokens, rel=near_kv, abs=16)
    assert stats.preemptions <= MOST_PREEMPTIONS.get(rule, stats.preemptions)
    assert 0.45 * stats.steps <= expected.steps <= (1 + near) * stats.steps + 1
    if not stats.preemptions:
        assert expected.steps == pytest.approx(stats.steps, rel=near, abs=1)


def test_the_rules_that_are_compared_differ() -> None:
    """Else the test above would hold nothing: in a tight pool each rule takes another number of steps."""
    steps = {}
    for rule in MOST_PREEMPTIONS:
        plan = make_plan(WORKLOADS["long tail"](), SPEC, EngineConfig("tiny", kv_tokens=1000, admission=rule), MACHINE)
        steps[rule] = plan.estimates.steps
    assert steps["aggressive"] < 0.97 * steps["headroom"] and steps["past-future"] < 0.97 * steps["conservative"], steps


JOBS: dict[str, Callable[[], Job]] = {
    "groups": lambda: Job(groups(4, 15, 64, 8), [1] * 60, [10 + 7 * i % 50 for i in range(60)]),
    "unrelated": lambda: Job([[i, *run(i, 40)] for i in range(50)], [1] * 50, [5 + 11 * i % 90 for i in range(50)]),
    "samples": lambda: Job([[i, *run(i, 60)] for i in range(15)], [4] * 15, [8 + 13 * i % 70 for i in range(15)]),
}


@pytest.mark.parametrize("loose", [1, 12])
@pytest.mark.parametrize("name", few_of(["groups"], ["unrelated", "samples"]))
@EACH
def test_the_walk_knows_limits_as_the_rule_does(rule: str, name: str, loose: int) -> None:
    """Answers end at their lengths, and the scheduler knows only their limits, `loose` times as far. A rule that
    predicts lengths is better informed in the walk, so that it is held from above."""
    job, kind = JOBS[name](), registry.kind("admission", rule)
    pages = max(job.demand(PAGE) // 4, job.largest_row(PAGE) * 3)
    scheduler = scheduler_of(job, pages, PAGE, 128, policy=Policy(admission=rule), loose=loose)
    drive(job, pages, PAGE, 128, scheduler=scheduler, runner=Zeros(), check=False)
    lengths, samples = np.array(job.outs, np.int64), np.array(job.ns, np.int64)
    rows = WalkSamples.of(job.forest, job.forest.order, samples, lengths, PAGE, limits=lengths * loose)
    steps = walk(job.forest, rows, Limits(128, pages * PAGE, PAGE, rule)).steps
    if scheduler.preemptions or (loose > 1 and kind.retries):
        assert steps <= 1.05 * scheduler.steps + 1
    else:
        near = 0.06 if rule in MOST_PREEMPTIONS else OTHERS
        assert steps == pytest.approx(scheduler.steps, rel=near, abs=2)


@dataclass
class Witness(Admission):
    """Notes what a rule says, and that what it admits fits now."""

    inner: Admission
    admitted: int = 0
    refused: int = 0

    def begin(self) -> None:
        self.inner.begin()

    def fits_now(self, candidate: Candidate) -> bool:
        return self.inner.fits_now(candidate)

    def admits(self, candidate: Candidate) -> bool:
        fits, answer = self.inner.fits_now(candidate), self.inner.admits(candidate)
        assert fits or not answer
        self.admitted, self.refused = self.admitted + answer, self.refused + (not answer)
        return answer


@pytest.mark.parametrize("loose", [1, 12])
@EACH
def test_what_is_admitted_fits_and_every_row_is_answered(rule: str, loose: int) -> None:
    job = JOBS["groups"]()
    pages = max(job.demand(PAGE) // 4, job.largest_row(PAGE))
    scheduler: Scheduler = scheduler_of(job, pages, PAGE, 64, policy=Policy(admission=rule), loose=loose)
    scheduler.admit.admission = seen = Witness(scheduler.admit.admission)
    done = drive(job, pages, PAGE, 64, scheduler=scheduler, runner=Zeros(), check=False)
    assert set(done.tokens) == job.samples and not done.failed and done.idle <= 100
    assert seen.admitted and seen.refused, "a pool that never binds tests nothing"
