"""The simulated runner on steps written by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.plan.workloads import MACHINE, SPEC
from umbel.cost.roofline import Load, Price
from umbel.cost.shape import Shape
from umbel.cost.windows import Windows, WindowShare
from umbel.ir.params import SamplingParams
from umbel.ir.scores import Scores
from umbel.ir.step import Sampling, Step
from umbel.ir.workload import Workload
from umbel.runner.base import run_step
from umbel.sim.runner import END, FILLER, SimRunner

PRICE = Price(Shape.of(SPEC, "float32"), MACHINE, "float32", SPEC.n_layers)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def step() -> Step:
    """A shared run of 8 tokens that is there; below it 2 new tokens of a prompt and one answer token of another row."""
    n = 2
    sampling = Sampling(
        at=ints(1, 2),
        temperature=np.zeros(n),
        top_k=ints(0, 0),
        top_p=np.ones(n),
        min_p=np.zeros(n),
        streams=ints(0, 0),
        keys=ints(40, 30),
        samples=ints(0, 0),
        positions=ints(10, 11),
        logprobs=ints(-1, -1),
    )
    return Step(
        tokens=ints(5, 6, FILLER),
        positions=ints(8, 9, 10),
        fresh=np.ones(3, bool),
        parent=ints(-1, 0, 0),
        start=ints(0, 8, 8),
        end=ints(8, 10, 11),
        row_begin=ints(0, 0, 2),
        row_end=ints(0, 2, 3),
        below_end=ints(3, 2, 3),
        pages=ints(0, 1, 2),
        page_begin=ints(0, 1, 2),
        page_size=16,
        sampling=sampling,
    )


def workload() -> Workload:
    """Two prompts of 10 tokens, known as rows 40 and 30 of the input."""
    return Workload.of([range(10), range(10)], SamplingParams(), keys=[40, 30])


def test_answers_end_at_the_lengths_of_their_rows() -> None:
    drawn = [run_step(SimRunner(PRICE, workload(), ints(a, b)), step()).token_ids.tolist() for a, b in [(1, 2), (2, 3)]]
    assert drawn == [[END, END], [FILLER, FILLER]]


@pytest.mark.parametrize(("shared", "read"), [(True, 8 + 2 + 3), (False, 10 + 11)])
def test_a_step_costs_its_price(shared: bool, read: int) -> None:
    runner = SimRunner(PRICE, workload(), ints(3, 3), shared_reads=shared)
    result = run_step(runner, step())
    assert result.kv_tokens_read == read
    expected = float(PRICE.each(Load.one(3, 2, 9 + 10 + 11, read))[0])
    assert result.seconds == runner.seconds == expected
    run_step(runner, step())
    assert runner.seconds == pytest.approx(2 * expected)
    assert (runner.prompt_tokens, runner.answer_tokens, runner.again) == (4, 2, 0)


def test_scored_tokens_cost_their_logits() -> None:
    """What is scored beside the draws is priced like a draw, each row of logits once, and gets numbers."""
    runner = SimRunner(PRICE, workload(), ints(3, 3))
    result = run_step(runner, replace(step(), scores=Scores(ints(0, 0, 1), ints(4, 5, 6), top=2)))
    assert runner.load.samples.tolist() == [2 + 2]
    assert result.scores is not None and result.scores.top_logprobs.shape == (3, 2)
    assert result.scores.logprobs.tolist() == [0, 0, 0]


def test_windows_bound_what_a_token_sees() -> None:
    runner = SimRunner(PRICE, workload(), ints(3, 3), windows=Windows((WindowShare(4),)))
    run_step(runner, step())
    assert runner.load.pairs.tolist() == [12]
