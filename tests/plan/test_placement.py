"""Rows dealt out to replicas: each once, computed tokens as claimed, no replica far above the mean; brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from umbel.config import EngineConfig
from umbel.cost.cards import named
from umbel.cost.devices import shared_by
from umbel.cost.machine import Machine
from umbel.ir.forest import Forest
from umbel.ir.params import SamplingParams
from umbel.ir.plan import Plan
from umbel.ir.selection import select_rows
from umbel.ir.spec import ModelSpec
from umbel.ir.workload import Workload
from umbel.plan.deal.placement import MAX_DEPTH, Placement, cut, deal, place
from umbel.plan.deal.shared_plan import SharedPlan, plan_replicas
from umbel.plan.passes.prefix import build_forest
from umbel.plan.planner import make_plan

SPEC = ModelSpec("llama", 512, 64, 2, 4, 2, 16, 128, 4096, 1e-5, 10_000.0)
SMALL = Machine("small", 1e9, 1e9, 1e9, 10**9, 0.5, 1e-5, 1e-6, (256,), ("float32",), "made up")
GREEDY = SamplingParams(temperature=0.0, max_tokens=4)
DRAWN = SamplingParams(temperature=0.7, max_tokens=4)

# Few tokens and short prompts, so that beginnings are shared, prompts are equal and some are prefixes of others.
Ints = NDArray[np.int64]
PROMPTS = st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=12), min_size=1, max_size=40)


def plan_of(workload: Workload, prefix: str = "every-fork") -> Plan:
    return make_plan(workload, SPEC, EngineConfig("m", dtype="float32", prefix=prefix, skip=("order", "pack")), SMALL)


def dealt(workload: Workload, replicas: int) -> tuple[Plan, Placement]:
    plan = plan_of(workload)
    samples = np.array([p.n for p in workload.params])
    return plan, place(plan, samples, replicas)


def rows_of(placement: Placement) -> list[Ints]:
    return [share.rows for share in placement.shares]


@settings(max_examples=60)
@given(PROMPTS, st.integers(1, 5), st.data())
def test_rows_tokens_and_balance(prompts: list[list[int]], replicas: int, data: st.DataObject) -> None:
    params = [data.draw(st.sampled_from([GREEDY, DRAWN])) for _ in prompts]
    workload = Workload.of(prompts, params)
    plan, placement = dealt(workload, replicas)
    assert sorted(np.concatenate(rows_of(placement)).tolist()) == list(range(len(prompts)))
    for share, tokens in zip(placement.shares, placement.tokens, strict=True):
        rows = share.rows
        assert len(share.stops) == len(share.seconds) and (np.diff(share.stops, prepend=0) > 0).all()
        assert (share.stops[-1] if len(rows) else 0) == len(rows)
        assert (plan.same_as[rows][:, None] == rows).any(axis=1).all()  # with each row the one that answers it
        assert tokens == (build_forest(select_rows(workload, rows)).n_tokens if len(rows) else 0)
    seconds = placement.seconds
    assert seconds.sum() >= plan.estimates.seconds[1] * (1 - 1e-9)
    # List scheduling: when the last piece came, no other bin was fuller.
    assert seconds.max() <= seconds.sum() / replicas + placement.largest * (1 - 1 / replicas) + 1e-12


@pytest.mark.parametrize("seed", range(4))
def test_never_far_from_the_best_of_all_ways(seed: int) -> None:
    """Every assignment of whole trees is tried, without anything to cut: Graham's bound for longest first holds."""
    rng = np.random.default_rng(seed)
    prompts = [[i + 1, *rng.integers(20, 500, int(rng.integers(5, 60))).tolist()] for i in range(8)]
    workload = Workload.of(prompts, GREEDY)
    plan, placement = dealt(workload, 3)
    alone = [place(plan_of(select_rows(workload, np.array([i]))), np.ones(1, int), 1).tokens[0] for i in range(8)]
    each = np.array([float(t) + 4 for t in alone])  # a token drawn is priced as one computed, or a little more
    best = min(
        max(each[[b == k for b in way]].sum() for k in range(3)) for way in itertools.product(range(3), repeat=8)
    )
    worst = max(each[rows].sum() for rows in rows_of(placement))
    assert worst <= (4 / 3 - 1 / 9) * best * 1.1
    assert int(placement.tokens.sum()) == plan.forest.n_tokens


def test_a_shared_beginning_is_cut_where_it_pays() -> None:
    """Short: two replicas compute it both. As long as everything else: it stays whole, and one replica rests."""
    tails = [[9, 8, i % 7 + 1, i // 7 + 1, *range(10, 20)] for i in range(40)]
    short = Workload.of([[1, 2, 3, *tail] for tail in tails], GREEDY)
    plan, placement = dealt(short, 2)
    again = int(placement.tokens.sum()) - plan.forest.n_tokens
    assert 5 <= again <= 12 and min(map(len, rows_of(placement))) >= 18
    long = Workload.of([[*range(1, 501), 1], [*range(1, 501), 2]], SamplingParams(temperature=0.0, max_tokens=1))
    plan, placement = dealt(long, 2)
    assert int(placement.tokens.sum()) == plan.forest.n_tokens and min(map(len, rows_of(placement))) == 0


def test_equal_prompts_that_draw_are_spread() -> None:
    workload = Workload.of([[1, 2, 3]] * 64, DRAWN)
    _, placement = dealt(workload, 4)
    assert [len(rows) for rows in rows_of(placement)] == [16] * 4 and placement.tokens.tolist() == [3] * 4


def test_twins_stay_together() -> None:
    workload = Workload.of([[1, 2, i % 4] for i in range(64)], GREEDY)
    _, placement = dealt(workload, 4)
    assert [len(rows) for rows in rows_of(placement)] == [16] * 4
    assert all(len({workload.prompt(int(i)).tobytes() for i in rows}) == 1 for rows in rows_of(placement))


def test_chains_are_looked_at_only_so_deep() -> None:
    """Each prompt one token longer than the one before: nodes are a chain, and the walk up from a piece is bounded."""
    n = 400
    workload = Workload.of([list(range(1, i + 2)) for i in range(n)], GREEDY)
    forest = build_forest(workload)
    pieces = cut(forest, np.ones(n), np.ones(n), limit=3.0, least=1.0)
    assert np.concatenate([forest.order[a:b] for a, b in zip(pieces.begin, pieces.stop, strict=True)]).size == n
    assert pieces.above.max() < MAX_DEPTH
    found = deal(forest, np.ones(n), pieces, 2)
    assert found.tokens.sum() >= n


def test_many_rows_take_little_time() -> None:
    n = 200_000
    ones = np.ones(n, np.int64)
    rows = np.arange(n)
    forest = Forest(-ones, 0 * ones, 100 * ones, rows, rows + 1, ones, rows, rows)
    pieces = cut(forest, np.ones(n), np.ones(n), limit=np.inf, least=2 * n / 8 / 64)
    assert len(pieces.begin) <= 8 * 64 + 1
    found = deal(forest, np.ones(n), pieces, 8)
    assert found.seconds.max() <= found.seconds.mean() * 1.02


def test_the_plan_says_who_gets_what() -> None:
    workload = Workload.of([[i % 50 + 1, *range(100, 160), i + 1] for i in range(300)], GREEDY)
    plan = plan_replicas(workload, 2, plan_of)
    assert isinstance(plan, SharedPlan)
    decision = plan.decision("replicas")
    a, b = (len(share.rows) for share in plan.shares)
    assert decision.value == 2 and decision.reason.startswith(f"{a} and {b} rows") and a + b == 300
    alone = plan_of(workload).estimates
    assert plan.estimates.seconds[1] == pytest.approx(alone.seconds[1] / 2, rel=0.15)
    assert plan.estimates.steps == pytest.approx(alone.steps, rel=0.2)
    assert plan.estimates.computed_prompt_tokens >= alone.computed_prompt_tokens
    assert f"{plan.estimates.computed_prompt_tokens - alone.computed_prompt_tokens:,} prompt tokens" in decision.reason


def test_a_processor_is_shared_and_a_gpu_is_not() -> None:
    here = Machine("this", 8e9, 8e9, 4e9, 10**9, 0.4, 1e-3, 1e-4, (512,), ("float32",), "measured")
    half = shared_by(here, 2)
    assert (half.matmul_flops, half.memory_rate, half.memory_bytes) == (4e9, 2e9, 5 * 10**8)
    assert half.name.startswith("1/2 of ") and half.step_overhead == here.step_overhead
    assert shared_by(here, 1) is here and shared_by(named("a100"), 2) == named("a100")


def test_figures_of_shares_are_those_of_their_rows() -> None:
    """By counting: what each replica computes are the distinct beginnings of its rows, and what is computed twice is
    the sum of these beyond the whole; seconds of runs are the same for each token."""
    rng = np.random.default_rng(5)
    prompts = [[i % 3 + 1, *range(10, 70), i % 9 + 80, *rng.integers(1, 60, 5).tolist()] for i in range(240)]
    workload = Workload.of(prompts, GREEDY)
    plan, whole = plan_replicas(workload, 5, plan_of), plan_of(workload)

    def distinct(rows: Ints) -> int:
        return len({tuple(prompts[row][:end]) for row in rows.tolist() for end in range(1, len(prompts[row]) + 1)})

    assert [share.rows for share in plan.planned] == [len(share.rows) for share in plan.shares]
    assert [share.tokens for share in plan.planned] == [distinct(share.rows) for share in plan.shares]
    again = sum(share.tokens for share in plan.planned) - distinct(np.arange(240))
    assert plan.recomputed_tokens == again > 0
    seconds = [share.seconds for share in plan.planned]
    assert max(seconds) == pytest.approx(plan.estimates.seconds[1])
    assert plan.idle_seconds == pytest.approx([max(seconds) - one for one in seconds]) and min(plan.idle_seconds) == 0
    placement = place(whole, np.ones(240, np.int64), 5)
    once = whole.estimates.seconds[1] / placement.makespan * max(seconds)
    assert sum(seconds) - plan.recomputed_seconds == pytest.approx(once)
