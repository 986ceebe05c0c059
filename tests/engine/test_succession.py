"""Workloads that follow each other in one loop: answers are those of each alone, in fewer steps."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.engine.test_ahead import Ahead
from tests.tiny_models import make_model
from umbel.api import LLM
from umbel.engine import succession
from umbel.ir.params import SamplingParams
from umbel.ir.plan import Plan
from umbel.ir.request import Output
from umbel.ir.workload import Workload
from umbel.runner.fake import FakeRunner

VOCAB = 300


def some_workloads(count: int, seed: int = 0) -> list[Workload]:
    """Rows with common beginnings and answers of very different lengths, numbered through."""
    rng, found, first = random.Random(seed), list[Workload](), 0
    for _ in range(count):
        rows = rng.randrange(6, 14)
        prompts = [[1, 2, rng.randrange(3), *range(3, 3 + rng.randrange(20))] for _ in range(rows)]
        params = [
            SamplingParams(
                temperature=rng.choice((0.0, 0.8)), n=rng.choice((1, 1, 2)), max_tokens=rng.choice((1, 3, 40))
            )
            for _ in range(rows)
        ]
        found.append(Workload.of(prompts, params, range(first, first + rows)))
        first += rows
    return found


class Given:
    """Workloads that are ready when `ready` says so; counts how often they were waited for."""

    several = True

    def __init__(self, llm: LLM, workloads: list[Workload], ready: Iterator[bool] | None = None):
        self._left = [(load, llm.plan_for(load)) for load in workloads]
        self._ready = ready
        self.waited = 0

    def take(self, *, wait: bool) -> tuple[Workload, Plan] | None:
        self.waited += wait
        if not self._left or not (wait or self._ready is None or next(self._ready)):
            return None
        return self._left.pop(0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_model(tmp_path_factory.mktemp("succession") / "llama", "llama"))


@pytest.fixture
def llm(model: str) -> LLM:
    return LLM(model, device="cpu", chunk=32, runner=FakeRunner(400, 4, VOCAB))


@pytest.fixture
def ahead(model: str) -> LLM:
    return LLM(model, device="cpu", chunk=32, kv_tokens=1600, page_size=4, runner=Ahead(FakeRunner(400, 4, VOCAB)))


def alone(llm: LLM, workloads: list[Workload]) -> dict[tuple[int, int], Output]:
    return {(i, o.row): o for i, load in enumerate(workloads) for o in llm.execute(load)}


def together(llm: LLM, given: Given) -> dict[tuple[int, int], Output]:
    found: dict[tuple[int, int], Output] = {}
    for number, output in llm.execute_all(given):
        assert (number, output.row) not in found, "twice"
        found[number, output.row] = output
    return found


def rows_of(workloads: list[Workload]) -> int:
    return sum(len(load) for load in workloads)


@pytest.mark.parametrize("engine", ["llm", "ahead"])
def test_answers_are_those_of_each_workload_alone(engine: str, request: pytest.FixtureRequest) -> None:
    llm, workloads = request.getfixturevalue(engine), some_workloads(12)
    before = llm.stats().steps
    expected = alone(llm, workloads)
    in_turn = llm.stats().steps - before
    found = together(llm, Given(llm, workloads))
    steps = llm.stats().steps - before - in_turn
    assert found == expected and len(found) == rows_of(workloads)
    assert steps < in_turn * 0.6, "one tail of long answers instead of twelve"


def test_a_workload_joins_when_no_row_waits(model: str) -> None:
    """With four tokens a step, rows of the next one start no earlier than the last of those before, and not much
    later."""
    llm = LLM(model, device="cpu", chunk=4, runner=FakeRunner(400, 4, VOCAB))
    running = list[int]()

    class Watched(Given):
        def take(self, *, wait: bool) -> tuple[Workload, Plan] | None:
            for loop in llm.engine.loops:
                assert loop.scheduler.waiting.first() is None
                running.append(loop.scheduler.seqs.n_running)
            return super().take(wait=wait)

    workloads = some_workloads(4, seed=3)
    assert len(together(llm, Watched(llm, workloads))) == rows_of(workloads)
    assert min(running[:3]) > 0, "each came while rows of the one before it ran"


def test_what_is_not_ready_holds_nothing_up(llm: LLM) -> None:
    workloads, rng = some_workloads(8, seed=1), random.Random(1)
    given = Given(llm, workloads, iter(lambda: rng.random() < 0.1, None))
    assert together(llm, given) == alone(llm, workloads)
    assert given.waited >= 2  # for the first, and for the end


def test_a_workload_that_needs_a_larger_pool_waits_for_the_end(model: str) -> None:
    llm = LLM(model, device="cpu", chunk=32)
    workloads = some_workloads(6, seed=2)
    given = Given(llm, workloads)
    given._left[3] = (workloads[3], replace(given._left[3][1], kv_tokens=10 * given._left[3][1].kv_tokens))
    pools, found = list[int](), dict[tuple[int, int], Output]()
    for number, output in llm.execute_all(given):
        found[number, output.row] = output
        pools.append(llm.engine.loops[0].scheduler.pool.n_pages)
    assert found == alone(llm, workloads)
    assert len(set(pools)) == 2 and pools == sorted(pools)


def test_the_pool_has_room_for_two_only_where_several_come(model: str) -> None:
    llm, pools = LLM(model, device="cpu", chunk=32), dict[bool, int]()
    (load,) = some_workloads(1)
    for several in (False, True):
        given = Given(llm, [load])
        given.several = several
        for _ in llm.execute_all(given):
            pools[several] = llm.engine.loops[0].scheduler.pool.n_pages
    assert pools[False] == llm.plan_for(load).kv_pages
    assert pools[False] < pools[True] <= 2 * pools[False]


def test_a_workload_with_another_drafter_waits_for_the_end(llm: LLM) -> None:
    workloads = some_workloads(4, seed=7)
    given = Given(llm, workloads)
    given._left[2:] = [(load, replace(plan, speculate="lookup")) for load, plan in given._left[2:]]
    drafts = dict[int, bool]()
    for number, _ in llm.execute_all(given):
        drafts[number] = llm.engine.loops[0].scheduler.speculate is not None
    assert drafts == {0: False, 1: False, 2: True, 3: True}


@pytest.mark.parametrize("limit", ["MOST_ROWS", "MOST_TOKENS"])
def test_a_loop_that_was_given_enough_takes_no_more(llm: LLM, limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what is held of rows that are done does not grow with the input."""
    workloads = some_workloads(10, seed=4)
    most = 20 if limit == "MOST_ROWS" else 200
    monkeypatch.setattr(succession, limit, most)
    largest = max(len(load) if limit == "MOST_ROWS" else len(load.tokens) for load in workloads)
    held, found = 0, dict[tuple[int, int], Output]()
    for number, output in llm.execute_all(Given(llm, workloads)):
        found[number, output.row] = output
        requests = llm.engine.loops[0].scheduler.requests
        held = max(held, len(requests) if limit == "MOST_ROWS" else len(requests.tokens))
    assert found == alone(llm, workloads)
    assert most < held < most + largest


def test_giving_up_leaves_the_engine_as_it_was(llm: LLM) -> None:
    workloads = some_workloads(5, seed=5)
    outputs = llm.execute_all(Given(llm, workloads))
    for _ in range(9):
        next(outputs)
    outputs.close()  # type: ignore[attr-defined]
    assert not llm.engine.loops
    assert together(llm, Given(llm, workloads)) == alone(llm, workloads)


@pytest.mark.usefixtures("cache")
def test_every_answer_teaches_once(model: str) -> None:
    llm = LLM(model, device="cpu", chunk=32)
    workloads = some_workloads(4, seed=6)
    found = together(llm, Given(llm, workloads))
    samples = sum(len(output.outputs) for output in found.values())
    assert llm.engine.history.load().lengths[""].answers == samples


@pytest.mark.parametrize("engine", ["llm", "ahead"])
def test_rows_that_are_not_wanted_are_taken_out(engine: str, request: pytest.FixtureRequest) -> None:
    """Of workloads that run, and of one that has yet to join: the others are answered as ever, in fewer steps."""
    llm, workloads = request.getfixturevalue(engine), some_workloads(3)
    expected, before = alone(llm, workloads), llm.stats().output_tokens
    out = [(number, row) for number in (0, 2) for row, p in enumerate(workloads[number].params) if p.max_tokens == 40]
    asked, found = iter([(), out]), dict[tuple[int, int], Output]()
    for number, output in llm.engine.execute_all(Given(llm, workloads), unwanted=lambda: next(asked, ())):
        found[number, output.row] = output
    assert len(out) > 1 and found == {place: one for place, one in expected.items() if place not in out}
    assert llm.stats().output_tokens - before < sum(len(c.token_ids) for one in expected.values() for c in one.outputs)
