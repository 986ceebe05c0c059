"""Tokens that are proposed change no answer: plain decoding is what every drafter is held to, the worst ones too."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest

from tests.drafters import Scripted
from tests.engine.test_ahead import BAD, ENDS, PAGE, Ahead, Sick, _Checks, random_job
from tests.engine.test_lives import Life
from tests.parameters import few_of
from tests.sched.drive import POLICIES, VOCAB, Job, check_from_scratch
from umbel.cache.pages import PagePool
from umbel.engine.loop import Loop
from umbel.ir.params import SamplingParams
from umbel.ir.report import Stats
from umbel.ir.request import Output
from umbel.ir.step import Step
from umbel.ir.workload import Workload
from umbel.plan.passes.prefix import build_forest
from umbel.runner.base import Runner
from umbel.runner.fake import FakeRunner
from umbel.sched.lot import Defaults, Lot
from umbel.sched.phases.speculate import Speculate
from umbel.sched.policies.policy import Policy
from umbel.sched.scheduler import Scheduler
from umbel.spec.base import Constant

RIGHT = (0.0, 0.6, 1.0)  # probabilities that a proposed token is right


def run(
    job: Job, runner: Runner, pages: int, chunk: int, policy: Policy, script: Scripted | None = None, most: int = 4
) -> tuple[list[Output], Loop]:
    """All outputs by row; the scheduler's books are checked after every step and at the end."""
    speculate = None if script is None else Speculate(script, Constant(most))
    scheduler = Scheduler(PagePool(pages, PAGE), chunk, policy, speculate=speculate)
    loop = Loop(scheduler, runner, spans=_Checks())
    loop.spans.scheduler = scheduler  # type: ignore[attr-defined]
    scheduler.next = checked(scheduler)  # type: ignore[method-assign]
    loop.add_lot(Lot(job.workload, job.forest, [ENDS] * len(job.prompts), np.array(job.outs)))
    outputs = sorted(loop.run(), key=lambda output: output.row)
    assert (scheduler.pool.used == 0 or policy.keep == "lru") and not scheduler.seqs.slot_of
    assert script is None or not script.has, "a sample that is gone was not ended"
    return outputs, loop


def checked(scheduler: Scheduler) -> Callable[[], Step | None]:
    """The scheduler's next step, held to what it is when it is laid out from scratch."""
    decide = scheduler.next

    def next_step() -> Step | None:
        step = decide()
        if step is not None:
            check_from_scratch(scheduler, step)
        return step

    return next_step


def script_of(job: Job, right: float, seed: int) -> Scripted:
    """A drafter that knows the job's answers, by rank in the order of the forest; end tokens are among its errors."""
    ranks = [(row, sample) for row in job.forest.order.tolist() for sample in range(job.ns[row])]
    answers = [Life(list(job.prompts[row]), sample, job.outs[row], []).answer() for row, sample in ranks]
    return Scripted(answers.__getitem__, right, (*ENDS, BAD, 0), seed)


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize(
    "policy", few_of(POLICIES[::7], POLICIES[1::2]), ids=lambda p: f"{p.queue}-{p.keep}-{p.admission}-{p.max_running}"
)
def test_the_same_answers(policy: Policy, ahead: bool) -> None:
    """Over random jobs and pools from too small for some rows to large enough for all, whatever is proposed; rows fail
    where a draw that counts is not finite, and only there."""
    rng, totals = random.Random(repr(policy)), Stats()
    for _ in range(2):
        job = random_job(rng)
        largest, demand = job.largest_row(PAGE), job.demand(PAGE)
        pages, chunk = max(rng.choice((largest - 1, largest, demand // 2, demand)), 2), rng.choice((3, 8, 64))
        wanted, plain = run(job, Sick(pages, PAGE, VOCAB), pages, chunk, policy)
        for right in RIGHT:
            runner, script = Sick(pages, PAGE, VOCAB), script_of(job, right, rng.randrange(99))
            shell = Ahead(runner) if ahead else runner
            got, loop = run(job, shell, pages, chunk, policy, script, rng.choice((1, 4, 9)))
            for one, two in zip(got, wanted, strict=True):
                assert (one.outputs, one.error and one.error.code) == (two.outputs, two.error and two.error.code)
            stats = loop.stats()
            assert right or not stats.accepted_tokens
            assert ahead or any(o.error for o in got) or stats.output_tokens == plain.stats().output_tokens
            totals = totals.plus(stats)
    assert totals.drafted_tokens > totals.accepted_tokens > 0 or policy.keep == "lru"


def test_steps_are_saved_where_proposals_come_true_and_none_is_added_where_they_do_not() -> None:
    """With room for all, rows of 17 tokens: the first with the prompt, then a draw and what was proposed before it."""
    job = Job([[5], [7], [8], [9]], [1] * 4, [17] * 4)
    pages = job.demand(PAGE) + 8
    wanted, _ = run(job, FakeRunner(pages, PAGE, VOCAB), pages, 64, Policy())
    assert [len(output.outputs[0].token_ids) for output in wanted] == [17] * 4
    for right, most, steps, drafted in ((1.0, 4, 5, 12), (1.0, 1, 9, 8), (0.0, 4, 17, 54)):
        runner = FakeRunner(pages, PAGE, VOCAB)
        got, loop = run(job, runner, pages, 64, Policy(), script_of(job, right, 0), most)
        stats = loop.stats()
        assert [output.outputs for output in got] == [output.outputs for output in wanted]
        assert (stats.steps, stats.drafted_tokens) == (steps, 4 * drafted)
        assert stats.accepted_tokens == right * 4 * drafted
        assert stats.recomputed_tokens == 0 and stats.output_tokens == 4 * 17
        assert runner.rows_run == 4 * (17 + drafted - right * drafted)


def test_drafts_take_nothing_from_others() -> None:
    """In a pool that others need, and steps that others fill: no sample is preempted that would not be, and no step is
    added, though tokens are proposed wherever there is room."""
    rng, drafted = random.Random(4), 0
    for admission in ("conservative", "past-future", "aggressive"):
        policy = Policy(admission=admission)
        for _ in range(3):
            job = random_job(rng)
            pages, chunk = max(job.demand(PAGE) // 2, job.largest_row(PAGE)), rng.choice((4, 8, 32))
            wanted, plain = run(job, FakeRunner(pages, PAGE, VOCAB), pages, chunk, policy)
            for ahead in (False, True):
                runner = FakeRunner(pages, PAGE, VOCAB)
                got, loop = run(job, Ahead(runner) if ahead else runner, pages, chunk, policy, script_of(job, 0.0, 0))
                assert [output.outputs for output in got] == [output.outputs for output in wanted]
                stats = loop.stats()
                assert ahead or (stats.steps, stats.preemptions) == (plain.stats().steps, plain.stats().preemptions)
                assert ahead or stats.computed_prompt_tokens == plain.stats().computed_prompt_tokens
                drafted += stats.drafted_tokens
    assert drafted > 40


def test_proposals_are_asked_for_by_rank_beside_a_sample_that_has_lost_its_tip() -> None:
    """It is rebuilt behind those that kept theirs, among which a fork may have come later than it."""
    prompts, most = [[5], [7]], 9
    lives = [Life(prompt, 0, most, []) for prompt in prompts]
    script = Scripted(lambda rank: lives[rank].answer(), 1.0, ENDS, 0)
    scheduler = Scheduler(PagePool(60, PAGE), 16, Policy(), speculate=Speculate(script, Constant(1)))
    loop = Loop(scheduler, FakeRunner(60, PAGE, VOCAB), None, Defaults(0, ENDS, 48))
    load = Workload.of(prompts, SamplingParams(temperature=1.0, max_tokens=most))
    loop.add_lot(Lot(load, build_forest(load), [ENDS] * 2, np.full(2, most)))
    loop.step()
    lives.append(Life([5], 1, most, list(loop.tokens_of(0, 0))))
    assert scheduler.books.give_way()
    loop.fork(0, 0, [2])
    found = {output.row: output.outputs[0].token_ids for output in loop.run()}
    assert found == {row: life.answer() for row, life in enumerate(lives)}
    assert loop.stats().drafted_tokens
