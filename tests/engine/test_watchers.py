"""Watchers of sampled tokens: several at once as one by one, lockstep where one asks for it, masks that are obeyed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from tests.books import check_books
from tests.engine.test_ahead import ENDS, PAGE, Ahead, random_job
from tests.engine.test_gpu_path import on_gpu_kernels
from tests.parameters import few_of
from tests.sched.drive import POLICIES, VOCAB, Job, apply, expected, scheduler_of
from tests.toys.alternating_ids import Alternating
from umbel.api import LLM
from umbel.cache.pages import PagePool
from umbel.engine.assemble import make_loop
from umbel.engine.build import build_runner, build_store, plan_workload
from umbel.engine.loop import Loop
from umbel.engine.watch.base import Surroundings, Watcher
from umbel.engine.watch.endings import Endings
from umbel.engine.watch.watchers import Watchers, known_watchers
from umbel.ir.params import SamplingParams
from umbel.ir.request import Output
from umbel.ir.sampled import Drawing, Ints, Outcomes, SampledTokens
from umbel.ir.step import StepResult
from umbel.ir.token_masks import DrawMasks
from umbel.ir.workload import Workload
from umbel.plan.passes.prefix import build_forest
from umbel.runner.base import Runner, run_step
from umbel.runner.fake import FakeRunner
from umbel.sched.lot import Defaults, Lot
from umbel.sched.policies.policy import Policy
from umbel.sched.request_table import RequestTable
from umbel.sched.scheduler import Scheduler


class Hasty(Alternating):
    """The same, but does not wait."""

    lockstep = False


def loop_of(
    job: Job, runner: Runner, pages: int, chunk: int, policy: Policy, extra: Sequence[type[Watcher]] = ()
) -> Loop:
    """A loop for a job whose rows have a seed where their number is odd."""
    params = [
        SamplingParams(n=p.n, temperature=p.temperature, seed=(None, 1)[row % 2])
        for row, p in enumerate(job.workload.params)
    ]
    workload = Workload.of(job.prompts, params)
    defaults, watchers = Defaults(width=VOCAB), (*known_watchers(), *extra)
    loop = Loop(Scheduler(PagePool(pages, PAGE), chunk, policy), runner, defaults=defaults, watchers=watchers)
    loop.add_lot(Lot(workload, build_forest(workload), [ENDS] * len(params), np.array(job.outs)))
    return loop


def run(loop: Loop) -> dict[int, Output]:
    """All outputs by row; the scheduler's books are checked after every step."""
    found: dict[int, Output] = {}
    while loop.busy:
        found |= {event.row: event for event in loop.step() if isinstance(event, Output)}
        check_books(loop.scheduler)
    assert not loop.scheduler.seqs.slot_of
    return found


def alternates(ids: tuple[int, ...]) -> bool:
    return all((one + other) % 2 for one, other in pairwise(ids))


def watcher_of(loop: Loop) -> Alternating:
    """The last of a loop's watchers, which is the test's own."""
    watcher = list(loop.watchers._bits.values())[-1]
    assert isinstance(watcher, Alternating)
    return watcher


@pytest.mark.parametrize(
    "policy", few_of(POLICIES[::10], POLICIES[1::4]), ids=lambda p: f"{p.queue}-{p.keep}-{p.admission}-{p.max_running}"
)
def test_lockstep_samples_wait_and_the_others_go_ahead(policy: Policy) -> None:
    """Over random jobs and pools that are large enough or too small for all: on a runner that works ahead the answers
    are those of one that does not, and no token is drawn before the watcher knows the one before it."""
    rng = random.Random(repr(policy))
    unknown = overlapped = preempted = draws = 0
    for _ in range(6):
        job = random_job(rng)
        pages, chunk = max(rng.choice((job.largest_row(PAGE), job.demand(PAGE))), 2), rng.choice((3, 8, 64))
        fake = [FakeRunner(pages, PAGE, VOCAB) for _ in range(3)]
        ahead = Ahead(fake[0])
        tested = loop_of(job, ahead, pages, chunk, policy, [Alternating])
        got, wanted = run(tested), run(loop_of(job, fake[1], pages, chunk, policy, [Alternating]))
        plain = run(loop_of(job, fake[2], pages, chunk, policy))
        assert {row: output.outputs for row, output in got.items()} == {row: o.outputs for row, o in wanted.items()}
        for row, output in got.items():
            for completion in output.outputs if row % 2 else ():
                assert alternates(completion.token_ids)
            assert row % 2 or output.outputs == plain[row].outputs
        watcher = watcher_of(tested)
        assert set(watcher.late) <= {0} and not watcher.known
        draws += len(watcher.late)
        unknown += ahead.unknown
        overlapped += ahead.most_open == 2
        preempted += tested.stats().preemptions
    assert draws > 50 and unknown > 20 and overlapped
    assert preempted or policy.admission != "aggressive"


def test_without_lockstep_the_last_token_is_not_known_in_time() -> None:
    """The test above can fail."""
    job = Job([[1, 2, 3], [4, 5, 6]], [1, 1], [9, 9])
    loop = loop_of(job, Ahead(FakeRunner(20, PAGE, VOCAB)), 20, 64, Policy(), [Hasty])
    run(loop)
    assert 1 in watcher_of(loop).late


class Nothing(Alternating):
    """Leaves no token after the second."""

    def masks(self, drawing: Drawing, which: Ints) -> DrawMasks | None:
        """Implement `Watcher.masks`."""
        found = super().masks(drawing, which)
        assert found is not None
        found.masks[drawing.before[which] == 2] = 0
        return found


@pytest.mark.parametrize("ahead", [False, True])
def test_a_row_without_a_token_left_is_an_error_and_its_neighbours_go_on(ahead: bool) -> None:
    job = Job([[1, 2, 3], [1, 2, 4], [1, 2, 5], [9]], [1, 2, 1, 3], [5, 6, 7, 8])
    plain = run(loop_of(job, FakeRunner(40, PAGE, VOCAB), 40, 64, Policy()))
    fake = FakeRunner(40, PAGE, VOCAB)
    loop = loop_of(job, Ahead(fake) if ahead else fake, 40, 64, Policy(), [Nothing])
    got = run(loop)
    for row, output in got.items():
        if row % 2:
            assert output.error is not None and output.error.code == "no_token_left"
        else:
            assert output.outputs == plain[row].outputs
    assert not watcher_of(loop).known and sorted(got) == [0, 1, 2, 3]


def alternating(llm: LLM, workload: Workload) -> list[tuple[int, ...]]:
    """Answers of a model whose rows with a seed are made to alternate."""
    model, watchers = llm.engine.model, (*known_watchers(), Alternating)
    plan = plan_workload(model, workload, llm.engine.machine)
    runner = build_runner(model, build_store(model, plan.kv_pages, plan.page_size))
    loop = make_loop(workload, plan, runner, llm.tokenizer, defaults=model.defaults, watchers=watchers)
    answers = {output.row: output.outputs[0].token_ids for output in loop.run()}
    assert set(watcher_of(loop).late) == {0}
    return [answers[row] for row in range(len(workload))]


@pytest.mark.nightly
def test_lockstep_on_the_kernels_of_gpus(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same answers, with masks and drawn tokens on the device of a runner that works ahead."""
    params = [
        SamplingParams(temperature=heat, seed=seed, max_tokens=5, ignore_eos=True)
        for heat in (0.0, 1.2)
        for seed in (None, 3)
    ]
    workload = Workload.of([[5, 6, 7, 8], [5, 6, 7, 9]] * 2, params)
    wanted = alternating(llm, workload)
    made = on_gpu_kernels(monkeypatch)
    assert alternating(llm, workload) == wanted and made
    assert [alternates(ids) for ids in wanted] == [False, True, False, True]


class FirstTwo(Watcher):
    """Lets two tokens of each sample count, as one does that verifies a draft whose second guess is wrong."""

    def look(self, sampled: SampledTokens, which: Ints, outcomes: Outcomes) -> None:
        """Lower what is kept."""
        outcomes.keep[which] = np.minimum(outcomes.keep[which], 2)


@pytest.mark.parametrize(("bad", "fails"), [(0, True), (1, True), (2, False)])
def test_only_draws_that_count_can_fail_a_row(bad: int, fails: bool) -> None:
    watchers = Watchers([make(Surroundings(RequestTable())) for make in (FirstTwo, Endings)])
    watchers.extend([SamplingParams()])
    one = np.zeros(1, np.int64)
    drawing = Drawing(one, one, one, one, one + 9, np.array([0, 3]))
    outcomes = watchers.judge(SampledTokens(drawing, StepResult(np.arange(3), np.arange(3) == bad)))
    assert list(outcomes.failed) == [0] * fails and outcomes.keep.tolist() == [0 if fails else 2]


@pytest.mark.parametrize("keep", [0, 1, 2, 3])
def test_tokens_kept_are_gone_on_from_and_the_others_are_drawn_again(keep: int) -> None:
    """A sample is handed three tokens at once, of which the first `keep` are right: its answer is the right one."""
    job = Job([[1, 2, 3, 4, 5], [1, 2, 3]], [1, 1], [12, 12])
    scheduler, runner = scheduler_of(job, 20, PAGE, 64), FakeRunner(20, PAGE, VOCAB)
    for _ in range(3):
        step = scheduler.next()
        assert step is not None
        apply(scheduler, run_step(runner, step))
    step = scheduler.next()
    assert step is not None
    result, drawing = run_step(runner, step), scheduler.advance()
    right = [expected(job, row, 0)[3:6] for row in drawing.rows.tolist()]
    tokens = np.array([*right[0][:keep], *[0] * (3 - keep), right[1][0]])
    assert result.token_ids.tolist() == [part[0] for part in right]
    several = Drawing(drawing.slots, drawing.ranks, drawing.rows, drawing.before, drawing.limits, np.array([0, 3, 4]))
    sampled = SampledTokens(several, StepResult(tokens, np.zeros(4, bool)))
    scheduler.settle(sampled, Outcomes(np.array([keep, 1])))
    answers: dict[int, list[int]] = {}
    while (step := scheduler.next()) is not None:
        check_books(scheduler)
        sampled = SampledTokens(scheduler.advance(), run_step(runner, step))
        scheduler.settle(sampled, Outcomes.of(sampled))
        for slot in sampled.drawing.slots.tolist():
            if scheduler.seqs.n_out[slot] == 12:
                answers[int(scheduler.seqs.row[slot])] = scheduler.seqs.out[slot, :12].tolist()
                scheduler.finish(slot)
    assert answers == {row: expected(job, row, 0) for row in (0, 1)}
