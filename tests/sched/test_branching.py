"""What forks and rows that arrive are spared: tokens computed, counted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.sched.drive import VOCAB, Job, apply, continued, expected, finish_full, fork, scheduler_of
from umbel.runner.base import run_step
from umbel.runner.fake import FakeRunner
from umbel.sched.lot import Lot
from umbel.sched.scheduler import Scheduler

PAGE = 4


def run(job: Job, scheduler: Scheduler, runner: FakeRunner, steps: int = 1000) -> dict[tuple[int, int], list[int]]:
    """Some steps of a scheduler, or all; the answers that are complete."""
    answers: dict[tuple[int, int], list[int]] = {}
    for _ in range(steps):
        if (step := scheduler.next()) is None:
            break
        finish_full(job, scheduler, apply(scheduler, run_step(runner, step)), answers)
    return answers


def test_a_fork_computes_nothing_twice() -> None:
    """Three samples in place of one after seven tokens: each has six computed already, and feeds the seventh itself."""
    job = Job([[1, 2, 3, 4, 5]], [2], [20])
    scheduler, runner = scheduler_of(job, 100, PAGE, 100), FakeRunner(100, PAGE, VOCAB)
    run(job, scheduler, runner, 7)
    slot = scheduler.seqs.slot_of[0]
    begin = scheduler.seqs.out[slot, :7].tolist()
    before, pages = runner.rows_run, scheduler.pool.used
    both, slots = fork(job, scheduler, slot, 2)
    assert scheduler.seqs.sample[slots].tolist() == [1, 2] and scheduler.pool.used == pages
    answers = run(both, scheduler, runner)
    wanted = {(row, row): continued(both, row, row, begin) for row in (1, 2)}
    assert answers == wanted | {(0, sample): expected(job, 0, sample) for sample in (0, 1)}
    assert len({tuple(answer[7:]) for answer in answers.values()}) == 4, "each draws its own"
    assert runner.rows_run - before == 4 * (20 - 7) and scheduler.recomputed_tokens == 0


def test_forks_of_forks_and_of_a_first_token() -> None:
    job = Job([[1, 2, 3]], [2], [9])
    scheduler, runner = scheduler_of(job, 100, PAGE, 100), FakeRunner(100, PAGE, VOCAB)
    run(job, scheduler, runner, 1)
    first = scheduler.seqs.out[scheduler.seqs.slot_of[0], :1].tolist()
    job, (child,) = fork(job, scheduler, scheduler.seqs.slot_of[0], 1)  # no token of the answer is computed yet
    run(job, scheduler, runner, 3)
    begin = scheduler.seqs.out[child, :4].tolist()
    assert begin == continued(job, 1, 1, first)[:4]
    job, _ = fork(job, scheduler, child, 1)
    answers = run(job, scheduler, runner)
    assert answers[2, 2] == continued(job, 2, 2, begin) and len(answers) == 4
    assert scheduler.recomputed_tokens == 0


def turns(scheduler: Scheduler, job: Job, answer: list[int]) -> tuple[Job, int]:
    """A second turn behind the first row's answer, and the same prompt again; both jobs as one, and its new tokens."""
    prompts = [[*job.prompts[0], *answer, 7, 7], list(job.prompts[0])]
    added = Job(prompts, [1, 1], [5, 5])
    workload = replace(added.workload, keys=np.array([1, 2]))
    scheduler.add(Lot(workload, added.forest, ((),) * 2, np.array(added.outs)))
    return Job([*job.prompts, *prompts], [1] * 3, [*job.outs, 5, 5]), added.forest.n_tokens


def test_a_later_turn_finds_the_prompt_and_the_answer() -> None:
    """All that was computed: the prompt, and 9 tokens of the answer, whose last one was never fed."""
    job = Job([[1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2]], [1], [10])
    scheduler, runner = scheduler_of(job, 100, PAGE, 100), FakeRunner(100, PAGE, VOCAB)
    scheduler.reuse()
    answer = run(job, scheduler, runner)[0, 0]
    both, _ = turns(scheduler, job, answer)
    answers = run(both, scheduler, runner)
    assert answers == {(row, 0): expected(both, row, 0) for row in (1, 2)}
    assert scheduler.computed_tokens == 11 + 1 + 2


def test_without_reuse_each_lot_is_computed_for_itself() -> None:
    job = Job([[1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2]], [1], [10])
    scheduler, runner = scheduler_of(job, 100, PAGE, 100), FakeRunner(100, PAGE, VOCAB)
    answer = run(job, scheduler, runner)[0, 0]
    assert scheduler.pool.used == 0
    both, tokens = turns(scheduler, job, answer)
    assert len(run(both, scheduler, runner)) == 2
    assert scheduler.computed_tokens == 11 + tokens


def test_what_is_kept_makes_room() -> None:
    """Kept prompts and answers are no reason to wait: a pool that one row fills serves one row after the other."""
    jobs = [Job([[i, 2, 3, 4, 5]], [1], [12]) for i in range(6)]
    scheduler, runner = scheduler_of(jobs[0], 5, PAGE, 100), FakeRunner(5, PAGE, VOCAB)
    scheduler.reuse()
    run(jobs[0], scheduler, runner)
    for i, job in enumerate(jobs[1:], 1):
        workload = replace(job.workload, keys=np.array([i]))
        scheduler.add(Lot(workload, job.forest, ((),), np.array(job.outs)))
        outs = Job([jobs[0].prompts[0]] * i + [job.prompts[0]], [1] * (i + 1), [12] * (i + 1))
        assert run(outs, scheduler, runner) == {(i, 0): expected(outs, i, 0)}
    assert scheduler.preemptions == 0 and not scheduler.failed
