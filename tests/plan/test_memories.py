"""Plans of jobs whose rows forget: what they hold, and what they say of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.plan.workloads import MACHINE, SPEC, of, run
from umbel.config import EngineConfig
from umbel.cost.forget import GRID, LEAST, LagMeasure, PromptShareMeasure, ShareMeasure, SinkWindowMeasure, held
from umbel.ir.plan import Plan
from umbel.ir.workload import Workload
from umbel.plan.planner import make_plan

MEASURES = [
    SinkWindowMeasure({"sinks": 4, "window": 100}),
    LagMeasure({"lag": 24, "budget": 0.3}),
    ShareMeasure({"budget": 0.25}),
    PromptShareMeasure({"budget": 0.5}),
]


def plan_of(workload: Workload, *technique: str, kv_tokens: int | None = None) -> Plan:
    """A plan of a job with techniques."""
    config = EngineConfig("tiny", technique=technique, allow_lossy=True, kv_tokens=kv_tokens, speculate="off")
    return make_plan(workload, SPEC, config, MACHINE)


@pytest.mark.parametrize("measure", MEASURES)
def test_what_is_held_is_what_comes_of_edge_after_edge(measure: SinkWindowMeasure) -> None:
    for prompt in (1, 15, 63, 64, 200, 777):
        places, edge = prompt, prompt
        for position in range(prompt, prompt + 400):
            if position == edge:
                places = min(places, measure.live(prompt, position))
                edge = measure.next_edge(prompt, position)
                assert edge > position and measure.last_edge(prompt, edge - 1) == position
            places += 1
            assert held(measure, prompt, position + 1) == places


def test_a_share_is_never_passed() -> None:
    measure = ShareMeasure({"budget": 0.25})
    for prompt in range(300, 600, 7):
        assert all(held(measure, prompt, end) <= max(LEAST + GRID, end / 4 + 1) for end in range(prompt + 1, 1200))


def test_rows_that_forget_hold_less_and_start_sooner() -> None:
    workload = of([[i, *run(i, 800)] for i in range(40)], max_tokens=64)
    dense, less = plan_of(workload), plan_of(workload, "lag-kv:budget=0.25,lag=64")
    assert less.kv_tokens < 0.5 * dense.kv_tokens
    assert less.estimates.kv_peak_tokens < 0.45 * dense.estimates.kv_peak_tokens
    few = [plan_of(workload, *asked, kv_tokens=6_000) for asked in ((), ("lag-kv:budget=0.25,lag=64",))]
    assert few[1].estimates.steps < few[0].estimates.steps
    full = plan_of(workload, "lag-kv:budget=1")
    assert full.estimates.seconds == dense.estimates.seconds


def test_rows_that_leave_the_technique_out_hold_all() -> None:
    """Half of the rows: between a job in which all forget, and one in which none does."""
    workload = of([[*run(0, 400), *run(9 + i, 400)] for i in range(40)], max_tokens=64)
    half = replace(workload, params=[workload.params[0].clone(techniques=None if i % 2 else []) for i in range(40)])
    asked = "sage-kv:budget=0.25"
    dense, mixed, less = plan_of(workload), plan_of(half, asked), plan_of(workload, asked)
    assert less.kv_tokens < mixed.kv_tokens < dense.kv_tokens
    facts, reason = mixed.decision("technique").facts, mixed.decision("technique").reason
    assert (facts["rows"], facts["kept_tokens"], facts["staying"]) == (20, 20 * 200, 400)
    assert facts["shared_tokens"] == 400 + 20 * 400 and "20 of 40 rows keep" in reason and "(r * p = 0.48)" in reason


def test_a_plan_says_where_sharing_keeps_less() -> None:
    """r * p above 1."""
    for rows, budget, less in ((40, 0.25, True), (10, 0.05, False)):
        shared = of([[*run(0, 800), i] for i in range(rows)], max_tokens=8)
        decision = plan_of(shared, f"sage-kv:budget={budget}").decision("technique")
        assert ("they would hold less without it" in decision.reason) == less
        kept = -(-801 * budget // 1)
        assert decision.facts["kept_tokens"] == rows * kept and decision.facts["shared_tokens"] == 800 + rows
