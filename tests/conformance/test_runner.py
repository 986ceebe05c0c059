"""Every runner, simulated ones aside: answers do not depend on how steps are cut, nor on whether it works ahead."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests.attention.stage import BACKENDS, poisoned_store, spec_of
from tests.engine.test_watchers import PAGE, loop_of, run
from tests.sched.drive import VOCAB, Job
from umbel.models.decoder import Decoder
from umbel.models.weights import dummy_weights
from umbel.runner.ahead import AheadTorchRunner
from umbel.runner.base import Runner
from umbel.runner.fake import FakeRunner
from umbel.runner.torch_runner import TorchRunner
from umbel.sched.policies.policy import Policy

CPU, PAGES = torch.device("cpu"), 60
SPEC = spec_of(2, 2, 16)
JOB = Job(
    [[7, 8, 9, *[3] * (i % 5), i, i + 1] for i in range(12)],
    [1 + i % 3 // 2 for i in range(12)],
    [2 + 5 * i % 9 for i in range(12)],
)


def on_torch(kind: type[TorchRunner]) -> Runner:
    """A tiny model over memory full of NaN."""
    weights = {k: v * 14 if v.ndim > 1 else v for k, v in dummy_weights(SPEC, torch.float32, 0).items()}
    return kind(Decoder(SPEC, weights), BACKENDS["torch"](SPEC, poisoned_store(SPEC, PAGES, PAGE)), CPU)


RUNNERS: dict[str, Callable[[], Runner]] = {
    "fake": lambda: FakeRunner(PAGES, PAGE, VOCAB),
    "torch": lambda: on_torch(TorchRunner),
    "a step ahead": lambda: on_torch(AheadTorchRunner),
}
EACH = pytest.mark.parametrize("name", RUNNERS)


def answers(name: str, pages: int = PAGES, chunk: int = 64, policy: Policy | None = None) -> dict[int, object]:
    """Token ids by row; the books of the scheduler are checked after each step."""
    runner = RUNNERS[name]()
    loop = loop_of(JOB, runner, pages, chunk, policy or Policy())
    found = {row: [c.token_ids for c in output.outputs] for row, output in run(loop).items()}
    assert len(found) == len(JOB.ns) and (loop.stats().preemptions > 0) == (pages < PAGES)
    runner.close()
    return found


@EACH
def test_answers_do_not_depend_on_steps_and_pages(name: str) -> None:
    """In one prompt a step, in many, and where rows are preempted."""
    wanted = answers(name)
    assert answers(name, chunk=5) == wanted
    tight = max(JOB.largest_row(PAGE), JOB.demand(PAGE) // 5)
    assert answers(name, pages=tight, policy=Policy(admission="aggressive")) == wanted


def test_a_step_ahead_gives_the_tokens_of_one_at_a_time() -> None:
    assert answers("a step ahead") == answers("torch")


@EACH
def test_it_says_how_far_it_works_ahead(name: str) -> None:
    """And begins no step before the result of the last one that it may not be ahead of was asked for."""
    runner, waits, open_at_once = RUNNERS[name](), [], []
    start = runner.start

    def watched(step):
        waits.append(False)
        open_at_once.append(waits.count(False))
        number, wait = len(waits) - 1, start(step)

        def landed():
            waits[number] = True
            return wait()

        return landed

    runner.start = watched
    loop = loop_of(JOB, runner, PAGES, 64, Policy())
    run(loop)
    assert runner.ahead in (0, 1) and max(open_at_once) == 1 + runner.ahead
    assert np.array(waits).all()
