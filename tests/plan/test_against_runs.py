"""The plan's estimates against what the engine's own loop does with a runner that computes nothing."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from tests.plan.loops import ZeroRunner, loop_of
from tests.plan.workloads import MACHINE, SPEC, conversations, groups, of, run, three_levels
from umbel.config import EngineConfig
from umbel.ir.params import SamplingParams
from umbel.ir.plan import Plan
from umbel.ir.report import Stats
from umbel.ir.workload import Workload
from umbel.plan.planner import make_plan


def stats_of(workload: Workload, plan: Plan) -> Stats:
    loop = loop_of(workload, plan, ZeroRunner())
    assert all(output.error is None for output in loop.run())
    return loop.stats()


def limits(n: int, draw: Callable[[random.Random], int], counts: Sequence[int] = (1,)) -> list[SamplingParams]:
    rng = random.Random(0)
    return [SamplingParams(max_tokens=draw(rng), n=rng.choice(counts)) for _ in range(n)]


def uneven() -> Workload:
    return Workload.of(groups(5, 16, 150, 30), limits(80, lambda rng: rng.randrange(1, 60)))


def mixed() -> Workload:
    """Groups, equal prompts and lone rows, with one or three samples each."""
    prompts = groups(3, 20, 200, 20) + [run(50, 64)] * 7 + [[900 + i, *run(i, 30)] for i in range(9)]
    return Workload.of(prompts, limits(len(prompts), lambda rng: rng.randrange(1, 40), (1, 1, 3)))


def long_tail() -> Workload:
    return Workload.of(groups(6, 20, 100, 20), limits(120, lambda rng: min(300, 2 + int(rng.expovariate(1 / 40)))))


def uneven_prompts() -> Workload:
    rng = random.Random(1)
    prompts = [[i, *run(i, rng.randrange(5, 300))] for i in range(60)]
    return Workload.of(prompts, limits(60, lambda rng: rng.randrange(1, 80)))


WORKLOADS = {
    "groups": lambda: of(groups(4, 24, 256, 32), max_tokens=4),
    "one group": lambda: of(groups(1, 48, 512, 32), max_tokens=32),
    "unrelated": lambda: of([[i, *run(i, 120)] for i in range(60)], max_tokens=20),
    "long answers": lambda: of([[i, *run(i, 20)] for i in range(30)], max_tokens=120),
    "one token": lambda: of(groups(8, 25, 200, 30), max_tokens=1),
    "samples": lambda: of(groups(2, 4, 150, 40), max_tokens=40, n=6),
    "uneven": uneven,
    "mixed": mixed,
    "long tail": long_tail,
    "uneven prompts": uneven_prompts,
    "twins": lambda: Workload.of([run(i % 9, 64) for i in range(90)], SamplingParams(max_tokens=20, temperature=0.0)),
    "chains": conversations,
    "levels": three_levels,
}


@pytest.mark.parametrize("kv_tokens", [None, 2000])
@pytest.mark.parametrize("chunk", [128, 512])
@pytest.mark.parametrize("name", WORKLOADS)
def test_estimates_are_near_what_happens(name: str, chunk: int, kv_tokens: int | None) -> None:
    workload = WORKLOADS[name]()
    plan = make_plan(workload, SPEC, EngineConfig("tiny", chunk=chunk, kv_tokens=kv_tokens), MACHINE)
    stats, expected = stats_of(workload, plan), plan.estimates
    assert stats.computed_prompt_tokens == expected.computed_prompt_tokens
    assert stats.output_tokens == expected.output_tokens
    assert expected.kv_peak_tokens == pytest.approx(stats.kv_peak_tokens, rel=0.05, abs=16)
    assert expected.steps == pytest.approx(stats.steps, rel=0.05, abs=1)


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_curve_adds_up_to_the_estimates(name: str) -> None:
    workload = WORKLOADS[name]()
    plan = make_plan(workload, SPEC, EngineConfig("tiny", chunk=128, kv_tokens=2000), MACHINE)
    curve, expected = plan.estimates.curve, plan.estimates
    width = np.diff(curve.steps, prepend=0.0)
    assert 0 < len(curve.steps) <= 512
    assert (width > 0).all() and (np.diff(curve.seconds, prepend=0.0) > 0).all()
    assert curve.steps[-1] == pytest.approx(expected.steps)
    assert curve.seconds[-1] == pytest.approx(expected.seconds[1], rel=1e-6)
    assert curve.kv_tokens.max() == expected.kv_peak_tokens
    ran = sum(workload.params[row].n for row in plan.order.tolist())
    fed = expected.computed_prompt_tokens + expected.output_tokens - ran  # the first token comes with the prompt
    assert float((curve.tokens * width).sum()) == pytest.approx(fed, rel=1e-6)
    assert float((curve.running * width).sum()) == pytest.approx(expected.output_tokens, rel=1e-6)
    assert curve.tokens.max() <= 128 * (1 + 1e-9)
