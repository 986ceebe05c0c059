"""The plan's estimates against what the engine's own loop does with a runner that computes nothing."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tests.plan.workloads import MACHINE, SPEC, groups, of, run
from umbel.cache.pages import PagePool
from umbel.config import EngineConfig
from umbel.engine.loop import Loop
from umbel.engine.output import Rows
from umbel.engine.state import LiveState
from umbel.ir.params import SamplingParams
from umbel.ir.plan import Plan
from umbel.ir.report import Stats
from umbel.ir.step import Step, StepResult
from umbel.ir.workload import Workload
from umbel.plan.planner import make_plan
from umbel.sched.assemble import SamplingTable
from umbel.sched.scheduler import Scheduler


class ZeroRunner:
    """Every sample draws token 0."""

    def run(self, step: Step) -> StepResult:
        n = len(step.sampling)
        return StepResult(np.zeros(n, np.int64), np.zeros(n, bool))

    def close(self) -> None:
        pass


def execute(workload: Workload, plan: Plan) -> Stats:
    ends: tuple[tuple[int, ...], ...] = ((),) * len(workload)
    table = SamplingTable.of(workload, 0, ends)
    pool = PagePool(plan.kv_tokens // plan.page_size, plan.page_size)
    scheduler = Scheduler(workload, plan.forest, table, plan.lengths, pool, plan.chunk)
    state = LiveState(workload, scheduler.seqs, ends, None)
    loop = Loop(scheduler, ZeroRunner(), state, Rows(workload, None))
    assert all(output.error is None for output in loop.run())
    return loop.stats()


def uneven() -> Workload:
    rng = random.Random(0)
    return Workload.of(groups(5, 16, 150, 30), [SamplingParams(max_tokens=rng.randrange(1, 60)) for _ in range(80)])


WORKLOADS = {
    "groups": lambda: of(groups(4, 24, 256, 32), max_tokens=4),
    "one group": lambda: of(groups(1, 48, 512, 32), max_tokens=32),
    "unrelated": lambda: of([[i, *run(i, 120)] for i in range(60)], max_tokens=20),
    "long answers": lambda: of([[i, *run(i, 20)] for i in range(30)], max_tokens=120),
    "one token": lambda: of(groups(8, 25, 200, 30), max_tokens=1),
    "samples": lambda: of(groups(2, 4, 150, 40), max_tokens=40, n=6),
    "uneven": uneven,
}


@pytest.mark.parametrize("kv_tokens", [None, 2000])
@pytest.mark.parametrize("chunk", [128, 512])
@pytest.mark.parametrize("name", WORKLOADS)
def test_estimates_are_near_what_happens(name: str, chunk: int, kv_tokens: int | None) -> None:
    workload = WORKLOADS[name]()
    plan = make_plan(workload, SPEC, EngineConfig("tiny", chunk=chunk, kv_tokens=kv_tokens), MACHINE)
    stats, expected = execute(workload, plan), plan.estimates
    assert stats.computed_prompt_tokens == expected.computed_prompt_tokens
    assert stats.output_tokens == expected.output_tokens
    assert expected.kv_peak_tokens == pytest.approx(stats.kv_peak_tokens, rel=0.05, abs=64)
    assert expected.steps == pytest.approx(stats.steps, rel=0.1, abs=2)
