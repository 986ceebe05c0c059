"""Steps decided while the one before is computed: the same answers as one after the other, whatever happens between."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from tests.books import check_books
from tests.parameters import few_of
from tests.sched.drive import OFTEN, RARELY, VOCAB, Job
from umbel.api import LLM
from umbel.cache.pages import PagePool
from umbel.engine.loop import Loop
from umbel.ir.params import SamplingParams
from umbel.ir.request import Output
from umbel.ir.step import Step, StepResult
from umbel.runner.ahead import AheadTorchRunner
from umbel.runner.base import Runner, Wait, done, run_step
from umbel.runner.fake import FakeRunner
from umbel.sched.lot import Lot
from umbel.sched.policies.policy import Policy
from umbel.sched.scheduler import Scheduler

PAGE = 4
ENDS = (3, 7)  # ids that end an answer
BAD = 11  # where this is drawn, the logits were not finite


class Sick(FakeRunner):
    """Some rows turn out to have logits that are not finite."""

    def start(self, step: Step) -> Wait:
        """Implement `Runner.start`."""
        result = super().start(step)()
        return done(replace(result, bad=(result.token_ids == BAD) & (step.sampling.positions % 3 == 0)))


class Counting(FakeRunner):
    """Counts the rows whose KV is written."""

    fresh = 0

    def start(self, step: Step) -> Wait:
        """Implement `Runner.start`."""
        self.fresh += int(step.fresh.sum())
        return super().start(step)


class Ahead:
    """Gives a result only when it is asked for, and takes tokens that are not known yet from its own last draws."""

    ahead = 1

    def __init__(self, runner: FakeRunner):
        self.runner = runner
        self.drawn = np.empty(0, np.int64)
        self.open = self.most_open = self.unknown = 0

    def start(self, step: Step) -> Wait:
        """Implement `Runner.start`."""
        unknown = step.tokens < 0
        self.unknown += int(unknown.sum())
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        tokens = step.tokens.copy()
        tokens[unknown] = self.drawn[-1 - step.tokens[unknown]]
        result = run_step(self.runner, replace(step, tokens=tokens))
        self.drawn = result.token_ids

        def wait() -> StepResult:
            self.open -= 1
            return result

        return wait

    def close(self) -> None:
        """Nothing to give back."""


def run(job: Job, runner: Runner, pages: int, chunk: int, policy: Policy) -> tuple[list[Output], Loop]:
    """All outputs by row; the scheduler's books are checked after every row and at the end."""
    scheduler = Scheduler(PagePool(pages, PAGE), chunk, policy)
    loop = Loop(scheduler, runner, spans=_Checks())
    loop.add_lot(Lot(job.workload, job.forest, [ENDS] * len(job.prompts), np.array(job.outs)))
    loop.spans.scheduler = scheduler  # type: ignore[attr-defined]
    outputs = list(loop.run())
    check_books(scheduler)
    assert scheduler.pool.used == 0 or policy.keep == "lru"
    assert not scheduler.seqs.slot_of
    return sorted(outputs, key=lambda output: output.row), loop


class _Checks:
    """Checks the scheduler's books whenever a step has landed."""

    scheduler: Scheduler

    def lap(self, name: str, value):
        """Implement `Spans.lap`."""
        return value

    def open(self) -> None:
        """Implement `Spans.open`."""

    def close(self, step: Step, kv_read: int) -> None:
        """Implement `Spans.close`."""
        check_books(self.scheduler)


def random_job(rng: random.Random) -> Job:
    """Few roots, many forks, some rows of several samples, short and long answers."""
    roots = [[rng.randrange(VOCAB) for _ in range(rng.randrange(1, 30))] for _ in range(3)]
    prompts = [
        rng.choice(roots)[: rng.randrange(1, 30)] + [rng.randrange(VOCAB) for _ in range(rng.randrange(9))]
        for _ in range(rng.randrange(1, 14))
    ]
    return Job(prompts, [rng.choice((1, 1, 2, 4)) for _ in prompts], [rng.randrange(1, 25) for _ in prompts])


@pytest.mark.parametrize(
    "policy",
    few_of(OFTEN[::2], (*OFTEN[1::2], *RARELY)),
    ids=lambda p: f"{p.queue}-{p.keep}-{p.admission}-{p.max_running}",
)
def test_the_same_answers(policy: Policy) -> None:
    """Over random jobs and pools from too small for some rows to large enough for all."""
    rng = random.Random(repr(policy))
    overlapped = preempted = wasted = unknown = failed = 0
    for _ in range(12):
        job = random_job(rng)
        pages = rng.choice((job.largest_row(PAGE) - 1, job.largest_row(PAGE), job.demand(PAGE) // 2, job.demand(PAGE)))
        pages, chunk = max(pages, 2), rng.choice((1, 3, 8, 64))
        ahead, plain = Ahead(Sick(pages, PAGE, VOCAB)), Sick(pages, PAGE, VOCAB)
        (got, loop), (wanted, _) = (run(job, runner, pages, chunk, policy) for runner in (ahead, plain))
        assert [output.row for output in got] == list(range(len(job.prompts)))
        for one, two in zip(got, wanted, strict=True):
            assert (one.outputs, one.error and one.error.code) == (two.outputs, two.error and two.error.code)
        assert loop.stats().output_tokens >= sum(len(c.token_ids) for output in got for c in output.outputs)
        assert ahead.most_open <= 2
        overlapped += ahead.most_open == 2
        unknown += ahead.unknown
        wasted += ahead.runner.rows_run > plain.rows_run
        preempted += loop.stats().preemptions
        failed += sum(output.error is not None for output in got)
    assert overlapped >= 4 and unknown > 50 and wasted and failed
    assert preempted or policy.admission != "aggressive"


def test_only_who_ends_unforeseen_is_computed_for_nothing() -> None:
    """With room for all: one row for each sample that an end token ends, none for those that reach their limit; and the
    lengths that are learned are those of the answers."""
    rng, early_ends, at_limit = random.Random(9), 0, 0
    for _ in range(20):
        job = random_job(rng)
        runners = [Counting(job.demand(PAGE), PAGE, VOCAB) for _ in range(2)]
        (got, loop), (wanted, other) = (
            run(job, runner, job.demand(PAGE), 8, Policy()) for runner in (Ahead(runners[0]), runners[1])
        )
        assert [output.outputs for output in got] == [output.outputs for output in wanted]
        reasons = [c.finish_reason for output in got for c in output.outputs]
        assert 0 <= runners[0].fresh - runners[1].fresh <= reasons.count("stop")
        tallies = [one.scheduler.lengths._all for one in (loop, other)]
        assert len({repr((sorted(t.ended.items()), sorted(t.cut.items()))) for t in tallies}) == 1
        early_ends += reasons.count("stop")
        at_limit += reasons.count("length")
    assert early_ends > 20 and at_limit > 20


def test_a_model_answers_the_same(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the torch runner, on a pool that is too small for all: stop strings, stop ids, least lengths, filters,
    log-probabilities and several samples of a row."""
    rng = random.Random(5)
    params = [
        SamplingParams(
            temperature=rng.choice((0.0, 0.9)),
            top_k=rng.choice((-1, 3)),
            top_p=rng.choice((1.0, 0.8)),
            seed=i,
            n=rng.choice((1, 1, 3)),
            max_tokens=rng.randrange(1, 30),
            min_tokens=rng.choice((0, 1)),
            stop_token_ids=(rng.randrange(100),),
            stop=rng.choice(((), ("e",), ("a", " th"))),
            logprobs=rng.choice((None, 0, 2)),
        )
        for i in range(24)
    ]
    prompts = [[5, 30, 40 + i % 5, *range(20, 20 + rng.randrange(12))] for i in range(24)]
    small = LLM(str(llm.config.model), dtype="float32", device="cpu", threads=1, chunk=24, kv_tokens=160)
    wanted, sync_steps = small.generate(prompts, params), small.stats().steps
    monkeypatch.setattr("umbel.engine.build.TorchRunner", lambda *parts: AheadTorchRunner(*parts[:3]))
    again = LLM(str(llm.config.model), dtype="float32", device="cpu", threads=1, chunk=24, kv_tokens=160)
    assert again.generate(prompts, params) == wanted
    assert again.stats().steps >= sync_steps and any(output.outputs[0].logprobs for output in wanted)
    assert {c.finish_reason for output in wanted for c in output.outputs} == {"stop", "length"}
