"""What the walk says attention has to do, against the layouts of the steps that are really run."""

from __future__ import annotations

import numpy as np
import pytest

from tests.plan.test_against_runs import WORKLOADS
from tests.plan.workloads import MACHINE, SPEC
from tests.sched.drive import apply
from umbel.attention.layout import GRID, lay_out
from umbel.cache.pages import PagePool
from umbel.config import EngineConfig
from umbel.cost.meter import Meter
from umbel.cost.pairs import READ_CELL
from umbel.ir.plan import Plan
from umbel.ir.workload import Workload
from umbel.plan.planner import make_plan
from umbel.plan.walk.clock import Limits, walk
from umbel.plan.walk.samples import TOGETHER, WalkSamples
from umbel.runner.base import run_step
from umbel.runner.fake import FakeRunner
from umbel.sched.lot import Lot
from umbel.sched.scheduler import Scheduler


def test_the_cell_is_the_one_of_attention() -> None:
    assert READ_CELL == GRID


def run(workload: Workload, plan: Plan) -> Meter:
    """The steps of a plan, with the KV that attention over the grid would read in each."""
    scheduler = Scheduler(PagePool(plan.kv_pages, plan.page_size), plan.chunk)
    scheduler.add(Lot(workload, plan.forest, [()] * len(workload), plan.lengths))
    runner, meter = FakeRunner(plan.kv_pages, plan.page_size, 50), Meter()
    while (step := scheduler.next()) is not None:
        meter.add(step, lay_out(step, TOGETHER).kv_tokens_read, 0.0)
        slots = apply(scheduler, run_step(runner, step))
        for slot in slots[scheduler.seqs.n_out[slots] >= scheduler.seqs.max_out[slots]].tolist():
            scheduler.finish(slot)
    return meter


@pytest.mark.parametrize("name", WORKLOADS)
def test_tokens_pairs_and_kv_reads_are_near_what_happens(name: str) -> None:
    workload = WORKLOADS[name]()
    plan = make_plan(workload, SPEC, EngineConfig("tiny", chunk=256), MACHINE)
    samples = np.array([p.n for p in workload.params])
    rows = WalkSamples.of(plan.forest, plan.order, samples, plan.lengths, plan.page_size)
    expected = walk(plan.forest, rows, Limits(plan.chunk, plan.kv_tokens, plan.page_size)).load
    happened = run(workload, plan).load()
    for column, rel in (("tokens", 0.01), ("samples", 0.001), ("pairs", 0.05), ("kv_read", 0.2)):
        total = float((getattr(happened, column) * happened.steps).sum())
        assert float((getattr(expected, column) * expected.steps).sum()) == pytest.approx(total, rel=rel), column
