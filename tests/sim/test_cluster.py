"""A cluster on a virtual clock: each row once whatever happens to nodes, near the bound, at prices that are counted."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest

from tests.plan.workloads import MACHINE, SPEC, groups, run
from umbel.cluster.deal import Deal
from umbel.config import EngineConfig
from umbel.errors import UsageError
from umbel.ir.params import SamplingParams
from umbel.ir.workload import Workload
from umbel.plan.deal.fit import token_prices
from umbel.sim.case import SimCase
from umbel.sim.cluster.nodes import Node, least_seconds, nodes_of
from umbel.sim.cluster.row_prices import RowPrices
from umbel.sim.cluster.run import SimCluster, plan_cluster, run_cluster
from umbel.sim.cluster.workers import RowWorker
from umbel.sim.simulate import simulate
from umbel.sim.synthetic import Synthetic

STEPPED = pytest.mark.parametrize("stepped", [False, True], ids=["rows", "steps"])


def case_of(prompts: Sequence[Sequence[int]] | Workload, outputs: int = 12, kv_tokens: int = 6000) -> SimCase:
    params = SamplingParams(max_tokens=outputs)
    workload = prompts if isinstance(prompts, Workload) else Workload.of([list(p) for p in prompts], params)
    draw = random.Random(5)
    lengths = np.array([draw.randrange(1, outputs + 1) for _ in range(len(workload))], np.int64)
    return SimCase(workload, SPEC, MACHINE, EngineConfig("tiny", kv_tokens=kv_tokens), lengths)


def skewed(rows: int, shared: int = 60) -> list[list[int]]:
    """Nine of ten rows below one root, in groups of eight that share as much again; the others alone."""
    return [
        [1, *run(1, shared), row // 8 + 2, *run(row // 8, shared), row] if row % 10 else [row + 5000, *run(row, 90)]
        for row in range(rows)
    ]


def ones(rows: int) -> np.ndarray:
    return np.ones(rows, np.int64)


@pytest.mark.parametrize("seed", range(6))
def test_rows_cost_what_the_row_before_did_not_have(seed: int) -> None:
    """In any order, with prompts that are equal or begin others, against sets of the tokens up to each position."""
    draw = random.Random(seed)
    prompts: list[list[int]] = []
    for _ in range(30):
        base = draw.choice(prompts) if prompts else []
        kept, more = base[: draw.randrange(len(base) + 1)], [draw.randrange(4) for _ in range(draw.randrange(5))]
        prompts.append([*kept, *more] or [1])
    case = SimCase(
        Workload.of(prompts, SamplingParams(temperature=0.0, max_tokens=9)),  # type: ignore[arg-type]
        SPEC, MACHINE, EngineConfig("tiny", kv_tokens=4096, prefix="every-fork"),
    )  # fmt: skip
    plan = case.plan
    prices = RowPrices.of(plan, ones(30), case.lengths)
    rows = np.array(draw.sample(range(30), 20))
    for last in (-1, int(plan.same_as[draw.randrange(30)])):
        have = ends_of(prompts[last]) if last >= 0 else set()
        seen: set[tuple[int, ...]] = set()
        expected = []
        for row in rows.tolist():
            prompt = tuple(prompts[row])
            expected.append(0 if prompt in seen else len(ends_of(prompt) - have))
            have = have if prompt in seen else ends_of(prompt)
            seen.add(prompt)
        assert prices.tokens(rows, last).tolist() == expected
    assert sum(prices.tokens(plan.order, -1).tolist()) == len(set().union(*map(ends_of, prompts)))
    token, drawn = token_prices(plan.estimates.curve)
    assert prices.answer[0] / prices.token == pytest.approx(case.lengths[0] * drawn / token)
    assert prices.whole == pytest.approx(plan.estimates.seconds[1])  # as lengths are those assumed


def ends_of(prompt: Sequence[int]) -> set[tuple[int, ...]]:
    return {tuple(prompt[:end]) for end in range(1, len(prompt) + 1)}


NODES = {
    "one": [Node()],
    "four": [Node()] * 4,
    "slow": [Node(), Node(), Node(), Node(1 / 3)],
    "late": [Node(), Node(comes=0.02), Node(2.0, comes=0.05), Node(comes=1e6)],
    "lost": [Node(), Node(goes=0.01), Node(goes=0.03), Node(0.5, goes=0.0), Node(comes=0.02, goes=0.04)],
}


@STEPPED
@pytest.mark.parametrize("name", NODES)
def test_every_row_is_answered_once(name: str, stepped: bool) -> None:
    case, nodes = case_of(skewed(150)), NODES[name]
    deal = Deal(plan_cluster(case, len(nodes)).shares)
    found = run_cluster(case, nodes, stepped=stepped)
    assert (found.answered, found.given_up, found.left) == (150, 0, 0)
    assert sum(found.rows_of_replicas) == 150  # none twice
    assert found.computed_prompt_tokens >= found.distinct_prompt_tokens == case.plan.forest.n_tokens
    assert not deal.over and found.lots >= len([n for n in nodes if n.comes < 1])
    assert 0 <= found.idle < 1 and found.seconds > 0


@STEPPED
def test_rows_are_left_when_all_nodes_are_lost(stepped: bool) -> None:
    case = case_of(skewed(150))
    whole = run_cluster(case, [Node()] * 2, stepped=stepped)
    found = run_cluster(case, [Node(goes=whole.seconds / 2)] * 2, stepped=stepped)
    assert 0 < found.left < 150 and found.answered + found.left == 150
    assert found.seconds < whole.seconds / 2 and found.least_seconds == math.inf


def test_a_lost_node_loses_what_it_had_not_answered() -> None:
    """Rows of a second each: what is under way at the loss is run again, what was answered is not."""
    case = case_of([[row + 1] for row in range(40)])
    plan = plan_cluster(case, 2)
    prices = RowPrices.of(case.plan, ones(40), case.lengths)
    prices.answer[:] = 1.0 - prices.token
    cluster = SimCluster(Deal(plan.shares), [Node(goes=7.5), Node()], lambda: RowWorker(prices, 0), 40)
    cluster.run()
    assert cluster.answers.tolist() == [1] * 40 and cluster.seconds == pytest.approx(33)


def test_a_slow_node_costs_no_more_than_its_speed() -> None:
    """One of four at a third of the speed, each with many batches to run: the end within a tenth of what their speeds
    together allow."""
    case = case_of(skewed(4000, 20), kv_tokens=800)
    found = run_cluster(case, [Node(), Node(), Node(), Node(1 / 3)], stepped=False)
    assert found.least_seconds == pytest.approx(found.one_node_seconds * 3 / 10)
    assert found.least_seconds <= found.seconds <= 1.1 * found.least_seconds
    assert found.idle < 0.1 and found.rows_of_replicas[3] < min(found.rows_of_replicas[:3])


@pytest.mark.slow
def test_a_slow_node_costs_no_more_than_its_speed_step_by_step() -> None:
    workload = Synthetic(prefix=100, remainder=20, degree=8, rows=1500, output=16, seed=1).workload()
    case = SimCase(workload, SPEC, MACHINE, EngineConfig("tiny", kv_tokens=500))
    found = run_cluster(case, [Node(), Node(), Node(), Node(1 / 3)], stepped=True)
    assert found.answered == 1500 and found.seconds <= 1.1 * found.least_seconds


def test_a_root_with_nine_of_ten_rows_is_shared_out() -> None:
    found = run_cluster(case_of(skewed(2000), kv_tokens=1500), [Node()] * 8, stepped=False)
    assert found.seconds <= 1.1 * found.least_seconds
    assert max(found.rows_of_replicas) < 2000 * 0.25
    assert found.computed_prompt_tokens < 1.1 * found.distinct_prompt_tokens


def test_prices_of_rows_and_steps_of_the_loop_agree() -> None:
    """The same cluster both ways: where batches are full they differ by little; on one node the loop is `umbel sim`."""
    workload = Synthetic(prefix=200, remainder=40, degree=8, rows=400, output=20, seed=1).workload()
    case = SimCase(workload, SPEC, MACHINE, EngineConfig("tiny", kv_tokens=1500))
    by_row, by_step = (run_cluster(case, [Node()] * 2, stepped=stepped) for stepped in (False, True))
    assert by_step.seconds == pytest.approx(by_row.seconds, rel=0.15)
    alone = simulate(case, "umbel").seconds
    assert by_step.one_node_seconds == alone
    assert run_cluster(case, [Node()], stepped=True).seconds == pytest.approx(alone, rel=0.05)


@STEPPED
def test_a_run_gives_the_same_figures_again(stepped: bool) -> None:
    prompts = groups(5, 12, 40, 12)
    first, again = (run_cluster(case_of(prompts), NODES["lost"], stepped=stepped) for _ in range(2))
    assert first == again


def test_the_bound_is_the_sum_of_the_speeds_that_are_there() -> None:
    nodes = [Node(), Node(0.5, comes=4.0), Node(2.0, comes=1.0, goes=3.0)]
    for work in (0.0, 0.5, 3.0, 5.0, 6.5, 12.0):
        time, left, tick = 0.0, work, 1e-3
        while left > 1e-9:
            left -= tick * sum(n.speed for n in nodes if n.comes <= time + 1e-9 < n.goes)
            time += tick
        assert least_seconds(nodes, work) == pytest.approx(time, abs=0.01)
    assert least_seconds([Node(goes=2.0)], 2.5) == math.inf


def test_nodes_are_read_from_options() -> None:
    assert nodes_of(3, "1,0.33", "2@30", "0@5,1@60") == [Node(goes=5.0), Node(0.33, goes=60.0), Node(comes=30.0)]
    assert nodes_of(2, None, None, None) == [Node(), Node()]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("1,1,1", None, None), "--speeds '1': there is no replica 2; they are 0 to 1"),
        (("0", None, None), "--speeds '0': must be a number of at least 1e-06"),
        (("fast", None, None), "--speeds 'fast': must be a number"),
        ((None, "2@1", None), "--joins '2@1': there is no replica 2"),
        ((None, "1", None), "--joins '': must be a number of at least 0"),
        ((None, None, "x@1"), "--losses 'x@1': must be REPLICA@SECONDS, as in 2@30"),
        ((None, None, "1@inf"), "--losses 'inf': must be a number"),
    ],
)
def test_nodes_that_cannot_be_are_named(options: tuple[str | None, ...], message: str) -> None:
    with pytest.raises(UsageError) as error:
        nodes_of(2, *options)
    assert message in str(error.value)
