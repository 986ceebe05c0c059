"""The size of pages: the usual one, unless pages hold states; then the one that takes the least memory."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.plan.workloads import MACHINE, SPEC, groups, of
from umbel.config import EngineConfig
from umbel.ir.layer import Layer
from umbel.ir.recurrence import Recurrence
from umbel.ir.spec import ModelSpec
from umbel.ir.workload import Workload
from umbel.plan.passes.page import SIZES
from umbel.plan.planner import make_plan

DELTA = Recurrence("gated_delta", 3 * 64, 4, heads=2, key_heads=2, key_dim=32, value_dim=32)
SHORT, LONG = of(groups(2, 8, 32, 8), max_tokens=4), of(groups(1, 2, 3000, 8), max_tokens=2000)


def with_states(kind: Recurrence = DELTA) -> ModelSpec:
    return replace(SPEC, layers=(Layer(recurrence=kind), Layer()), n_layers=2)


def bytes_of(workload: Workload, size: int, prompts: list[int], answer: int, token: int, state: int) -> int:
    """What all runs and answers take in pages of a size."""
    pages = sum(-(-run // size) for run in [*prompts, *[answer] * len(workload)])
    return pages * (size * token + state)


@pytest.mark.parametrize(("load", "runs"), [(SHORT, [32] * 2 + [8] * 16), (LONG, [3000, 8, 8])])
def test_it_takes_the_least_memory(load: Workload, runs: list[int]) -> None:
    spec = with_states()
    plan = make_plan(load, spec, EngineConfig("tiny", dtype="float32"), MACHINE)
    token, state = 2 * spec.n_kv_heads * spec.head_dim * 4, 4 * 3 * 64 * 4 + 2 * 32 * 32 * 4
    answer = int(plan.lengths[0])
    wanted = min(SIZES, key=lambda size: bytes_of(load, size, runs, answer, token, state))
    assert plan.page_size == wanted and plan.has_states
    assert plan.decision("page_size").facts["state_bytes"] == state
    assert plan.kv_tokens % plan.page_size == 0


def test_long_texts_take_large_pages_and_what_is_asked_counts() -> None:
    config = EngineConfig("tiny", dtype="float32")
    short, long = (make_plan(load, with_states(), config, MACHINE).page_size for load in (SHORT, LONG))
    assert short < long
    assert make_plan(LONG, SPEC, config, MACHINE).page_size == 16
    assert make_plan(LONG, with_states(), replace(config, page_size=8), MACHINE).page_size == 8
    least = 3008 + int(make_plan(LONG, with_states(), config, MACHINE).lengths[0])
    tight = make_plan(LONG, with_states(), replace(config, kv_tokens=least + 50), MACHINE)
    assert tight.page_size < long
