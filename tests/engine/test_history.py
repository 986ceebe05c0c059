"""What runs teach through the Python API: kept when they finish or are given up, and never a part of the answers."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from tests.tiny_models import make_model
from umbel.api import LLM
from umbel.cost.known import Known
from umbel.ir.params import SamplingParams

pytestmark = pytest.mark.usefixtures("cache")
PROMPTS = [[5, 6, 7, i + 8, 9] for i in range(24)]
PARAMS = SamplingParams(temperature=0.0, max_tokens=30, ignore_eos=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_model(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the clock is a tenth of a second after the last, so that no run is too short to teach."""
    seconds = itertools.count(1000.0, 0.1)
    monkeypatch.setattr("umbel.engine.loop.time.perf_counter", lambda: next(seconds))


def known(llm: LLM) -> Known:
    return llm.engine.history.load()


def test_rows_that_are_only_scored_teach_nothing_about_answers(model: str) -> None:
    """Nor do they spoil what is kept: a length of 0 would be no length, and reading it would warn."""
    llm = LLM(model, device="cpu")
    llm.score(PROMPTS, [[3], [4, 5]])
    assert known(llm).lengths == {}
    stoppable = replace(PARAMS, stop_token_ids=(2,))
    llm.generate(PROMPTS, stoppable)
    llm.score(PROMPTS, [[3], [4, 5]])
    learned = known(llm).lengths[""]
    assert learned.answers == len(PROMPTS) and learned.lengths.min() > 0


def test_rows_that_only_their_limit_can_end_teach_nothing_about_answers(model: str) -> None:
    llm = LLM(model, device="cpu")
    llm.generate(PROMPTS, PARAMS)
    assert known(llm).lengths == {} and known(llm).calibration is not None


def test_a_run_teaches_what_its_steps_took(model: str) -> None:
    llm = LLM(model, device="cpu")
    assert known(llm).calibration is None
    llm.generate(PROMPTS, PARAMS)
    learned = known(llm).calibration
    assert learned is not None and (learned.jobs, learned.steps) == (1, llm.stats().steps)
    assert "1 earlier run" in LLM(model, device="cpu").plan(PROMPTS, PARAMS).decision("machine").reason


def test_a_run_given_up_teaches_too(model: str) -> None:
    llm = LLM(model, device="cpu")
    mixed = [SamplingParams(temperature=0.0, max_tokens=5 + 6 * i, ignore_eos=True) for i in range(24)]
    outputs = llm.stream(PROMPTS, mixed)
    for _ in range(10):
        next(outputs)
    outputs.close()  # type: ignore[attr-defined]
    learned = known(llm).calibration
    assert learned is not None and 5 <= learned.steps == llm.stats().steps


def test_the_time_of_whoever_takes_the_outputs_is_not_the_engines(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that only moves while an output is in the caller's hands, no time passes for the engine."""
    llm = LLM(model, device="cpu")
    workload = llm.intake.take(PROMPTS, PARAMS).workload
    now, meter = [0.0], None
    monkeypatch.setattr("umbel.engine.loop.time.perf_counter", lambda: now[0])
    for _ in llm.execute(workload):
        now[0] += 100.0
        meter = llm.engine.loops[0].meter if llm.engine.loops else None
    assert meter is not None and meter.total_seconds == 0.0 and meter.load().steps.sum() == llm.stats().steps


def test_answers_do_not_depend_on_it(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = LLM(model, device="cpu")
    first = [o.outputs[0].token_ids for o in llm.generate(PROMPTS, PARAMS)]
    again = [o.outputs[0].token_ids for o in llm.generate(PROMPTS, PARAMS)]
    monkeypatch.setenv("UMBEL_CACHE", "off")
    off = LLM(model, device="cpu")
    assert first == again == [o.outputs[0].token_ids for o in off.generate(PROMPTS, PARAMS)]
    assert known(off).calibration is None


def test_random_weights_teach_no_lengths(model: str) -> None:
    llm = LLM(model, device="cpu", load_format="dummy")
    llm.generate(PROMPTS, PARAMS)
    assert known(llm).calibration is not None and not known(llm).lengths
    assert llm.engine.history.lengths is None
