"""Rows that are stopped with half an answer and taken up later: the same answers, and no token drawn twice."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from tests.engine.test_ahead import Ahead
from tests.engine.test_succession import VOCAB, Given, alone, some_workloads
from tests.tiny_models import make_model
from umbel.api import LLM
from umbel.ir.request import Output
from umbel.ir.resumable import Resumable
from umbel.ir.selection import select_rows
from umbel.ir.stops import Place
from umbel.ir.workload import Workload
from umbel.jobs.unfinished import plain, restored
from umbel.runner.fake import FakeRunner

LONG = 1e9  # seconds


class AtStep:
    """Stops after so many steps, or never; keeps what is kept every `every` steps. `had` is what rows begin with."""

    def __init__(self, steps: int, had: Mapping[Place, Resumable], grace: float = 0.0, every: int = 10**9):
        self.left, self.had, self.grace, self.every = steps, had, grace, every
        self.kept: dict[Place, Resumable] = {}
        self.near: list[int] = []
        self.asked = 0

    def until(self) -> float | None:
        self.left -= 1
        return time.monotonic() + self.grace if self.left < 0 else None

    def due(self) -> bool:
        self.asked += 1
        return self.asked % self.every == 0

    def begun(self, number: int) -> Mapping[int, Resumable]:
        return {row: record for (of, row), record in self.had.items() if of == number}

    def keep(self, unfinished: Mapping[Place, Resumable], *, near: int = 0) -> None:
        self.kept |= unfinished
        self.near.append(near)


class Lives:
    """Workloads that are run in several lives, each with the rows that the one before it left."""

    def __init__(self, workloads: list[Workload]):
        self.workloads = workloads
        self.done: dict[Place, Output] = {}
        self.kept: dict[Place, Resumable] = {}

    def live(self, llm: LLM, steps: int, **how: Any) -> AtStep:
        left = [[row for row in range(len(load)) if (i, row) not in self.done] for i, load in enumerate(self.workloads)]
        numbers = [i for i, rows in enumerate(left) if rows]
        place = {(at, new): (i, row) for at, i in enumerate(numbers) for new, row in enumerate(left[i])}
        had = {}
        for now, then in place.items():
            if then in self.kept:
                params = self.workloads[then[0]].params[then[1]]
                had[now] = restored(plain(self.kept[then]), params)
        loads = [select_rows(self.workloads[i], np.array(left[i])) for i in numbers]
        stops = AtStep(steps, had, **how)
        for number, output in llm.engine.execute_all(Given(llm, loads), stops):
            whose = place[number, output.row]
            assert whose not in self.done, "twice"
            self.done[whose] = Output(whose[1], output.prompt_tokens, output.outputs, output.error)
            self.kept.pop(whose, None)
        self.kept |= {place[now]: record for now, record in stops.kept.items() if place[now] not in self.done}
        return stops


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_model(tmp_path_factory.mktemp("unfinished") / "llama", "llama"))


def engine_of(model: str, *, ahead: bool, pages: int = 400) -> LLM:
    runner = FakeRunner(pages, 4, VOCAB)
    if not ahead:
        return LLM(model, device="cpu", chunk=32, runner=runner)
    return LLM(model, device="cpu", chunk=32, kv_tokens=4 * pages, page_size=4, runner=Ahead(runner))


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("number", range(5))
def test_ten_stops_leave_the_answers_and_draw_no_token_twice(number: int, ahead: bool, model: str) -> None:
    """Fifty random moments for each kind of runner, some rows short of memory, in windows that overlap."""
    rng, workloads = random.Random(number), some_workloads(6, seed=number)
    llm = engine_of(model, ahead=ahead, pages=400 if number % 2 else 60)
    expected = alone(llm, workloads)
    drawn, recomputed = llm.stats().output_tokens, llm.stats().recomputed_tokens
    lives, half = Lives(workloads), 0
    for _ in range(10):
        lives.live(llm, rng.randrange(1, 12))
        half += sum(len(one.token_ids) for record in lives.kept.values() for one in record.open)
    lives.live(llm, 10**9)
    assert lives.done == expected
    assert llm.stats().output_tokens == 2 * drawn, "a token was drawn twice, or lost"
    assert half > 50 and llm.stats().recomputed_tokens > recomputed, "answers were half written, and replayed"


def test_rows_near_their_end_go_on_alone(model: str) -> None:
    """With all the time there is, each row that runs ends, and none that waits starts."""
    llm, workloads = engine_of(model, ahead=False), some_workloads(8, seed=5)
    expected, lives = alone(llm, workloads), Lives(workloads)
    stops = lives.live(llm, 9, grace=LONG)
    assert stops.near[0] > 0 and len(lives.done) < len(expected)
    begun = len(lives.done)
    assert not any(one.token_ids for record in lives.kept.values() for one in record.open), "they had the time to end"
    lives.live(llm, 10**9)
    assert lives.done == expected and len(lives.done) > begun


def test_what_is_kept_while_rows_run_is_what_they_have(model: str) -> None:
    """A process that is killed goes on from there: some tokens are drawn again, none of them another one."""
    llm, workloads = engine_of(model, ahead=True), some_workloads(4, seed=6)
    expected, lives = alone(llm, workloads), Lives(workloads)
    stops = AtStep(10**9, {}, every=7)
    running = llm.engine.execute_all(Given(llm, workloads), stops)
    for number, output in running:
        lives.done[number, output.row] = output
        if len(stops.near) > 3:
            break
    running.close()  # type: ignore[attr-defined]
    lives.kept = {place: record for place, record in stops.kept.items() if place not in lives.done}
    assert lives.kept
    lives.live(llm, 10**9)
    assert lives.done == expected
