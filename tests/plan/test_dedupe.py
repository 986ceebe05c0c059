"""Twins against a dictionary of (tokens, parameters), and what the scheduler does with a forest without them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.books import check_books
from tests.plan.test_grouping import MODES, draft_of
from tests.sched.drive import Job, apply, expected, finish_full
from umbel.cache.pages import PagePool
from umbel.ir.distinct import Distinct
from umbel.ir.params import SamplingParams
from umbel.ir.workload import Workload
from umbel.plan.draft import PlanDraft
from umbel.plan.passes.dedupe import answer_once, without_twins
from umbel.plan.passes.prefix import build_forest, share_prefixes
from umbel.runner.base import run_step
from umbel.runner.fake import FakeRunner
from umbel.sched.lot import Lot
from umbel.sched.scheduler import Scheduler

GREEDY = SamplingParams(temperature=0.0, max_tokens=4)
CHOICES = [
    GREEDY,
    SamplingParams(temperature=0.0, max_tokens=4),  # equal by value
    SamplingParams(temperature=0.0, max_tokens=4, logprobs=2),
    SamplingParams(temperature=0.0, max_tokens=4, n=2),
    SamplingParams(temperature=0.5, max_tokens=4, seed=1),
    SamplingParams(temperature=0.5, max_tokens=4),
]
ROWS = st.lists(st.tuples(st.lists(st.integers(0, 1), min_size=1, max_size=4), st.integers(0, 5)), max_size=14)


def deduped(prompts: list[list[int]], params: list[SamplingParams], mode: str = "forest") -> PlanDraft:
    return deduped_workload(Workload.of(prompts, params), mode)


def deduped_workload(workload: Workload, mode: str) -> PlanDraft:
    prompts = [workload.prompt(row).tolist() for row in range(len(workload))]
    draft = dataclasses.replace(draft_of(prompts, mode, page_size=2), workload=workload)
    return answer_once(share_prefixes(draft))


@pytest.mark.parametrize("mode", MODES)
def test_rows_of_two_scopes_are_no_twins(mode: str) -> None:
    equal = Workload.of([[1, 2, 3]] * 4, SamplingParams(temperature=0.0))
    done = deduped_workload(dataclasses.replace(equal, scope=np.array([1, 0, 1, 0])), mode)
    assert done.same_as is not None and done.same_as.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("mode", MODES)
@given(rows=ROWS)
def test_twins_are_equal_and_draw_nothing_or_by_one_seed(mode: str, rows: list[tuple[list[int], int]]) -> None:
    prompts, params = [p for p, _ in rows], [CHOICES[c] for _, c in rows]
    done = deduped(prompts, params, mode)
    first: dict[object, int] = {}
    for row, (prompt, asked) in enumerate(zip(prompts, params, strict=True)):
        key = (tuple(prompt), asked) if asked.temperature == 0 or asked.seed is not None else row
        assert done.same_as[row] == first.setdefault(key, row)
    running = [row for row in range(len(rows)) if done.same_as[row] == row]
    assert sorted(done.order.tolist()) == running
    assert done.order.tolist() == done.forest.order.tolist()
    check_counts(done, running)


def check_counts(done: PlanDraft, running: list[int]) -> None:
    """Every node is on the path of a row that runs; paths spell prompts, those of twins too."""
    forest, workload = done.forest, done.workload
    below = np.zeros(forest.n_nodes, int)
    for row in range(len(workload)):
        path, node = [], int(forest.leaf[row])
        while node >= 0:
            path.append(node)
            node = int(forest.parent[node])
        tokens = [
            t for n in path[::-1] for t in workload.prompt(int(forest.source[n]))[forest.start[n] : forest.end[n]]
        ]
        assert tokens == workload.prompt(row).tolist()
        below[path] += row in running
    assert below.tolist() == forest.rows_below.tolist()
    assert (forest.rows_below > 0).all()
    for node in range(forest.n_nodes):
        assert forest.subtree_end[node] == node + 1 + sum(
            any(n == node for n in above(forest.parent, other)) for other in range(forest.n_nodes)
        )


def above(parent: np.ndarray, node: int) -> list[int]:
    found = []
    while (node := int(parent[node])) >= 0:
        found.append(node)
    return found


def test_params_are_numbered_by_value() -> None:
    params = [GREEDY, CHOICES[1], CHOICES[4], GREEDY, SamplingParams(temperature=0.0, max_tokens=5)]
    numbers, n = Distinct.of(params).by_value()
    assert n == len(set(numbers.tolist())) == 3
    assert numbers[0] == numbers[1] == numbers[3]
    assert Distinct.of([]).by_value()[1] == 0


def test_the_decision_counts_what_is_spared() -> None:
    done = deduped([[1, 2, 3], [1, 2, 3], [1, 2, 3], [4]], [GREEDY, GREEDY, CHOICES[5], GREEDY])
    decision = done.decisions[-1]
    assert (decision.name, decision.value) == ("dedupe", "1 row")
    assert "3 prompt tokens not read again" in decision.reason
    for choice, spared in ((CHOICES[4], "1 row"), (CHOICES[5], "0 rows")):
        assert deduped([[1, 2], [1, 2]], [choice] * 2).decisions[-1].value == spared


def test_a_hundred_thousand_identical_rows() -> None:
    n = 100_000
    tokens = np.tile(np.arange(8, dtype=np.int32), n)
    workload = Workload(tokens, np.arange(n + 1) * 8, [GREEDY] * n, np.arange(n))
    done = answer_once(share_prefixes(dataclasses.replace(draft_of([[1]]), workload=workload, samples=np.ones(n))))
    assert (done.same_as == 0).all()
    assert done.order.tolist() == [0]
    assert done.forest.rows_below.tolist() == [1]


def test_pages_of_a_twin_are_given_back() -> None:
    """The production scheduler on a forest without twins: all answers that run are right, and nothing is left held."""
    prompts = [[1, 2, 3], [1, 2, 3], [1, 2, 4], [1, 2, 3], [5]]
    job = Job(prompts, [1] * 5, [3] * 5)
    job.forest = without_twins(build_forest(job.workload), np.array([0, 0, 2, 0, 4]))
    scheduler = Scheduler(PagePool(12, 2), 16)
    scheduler.add(Lot(job.workload, job.forest, [()] * 5, np.array(job.outs)))
    runner, tokens = FakeRunner(12, 2, 50), {}
    while (step := scheduler.next()) is not None:
        finish_full(job, scheduler, apply(scheduler, run_step(runner, step)), tokens)
        check_books(scheduler)
    assert tokens == {(row, 0): expected(job, row, 0) for row in (0, 2, 4)}
    assert scheduler.pool.free == 12
