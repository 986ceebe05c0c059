"""Every keeper of the catalogue: a full budget is dense attention to the bit; what a row sees depends on its own tokens
alone, wherever chunks end, whatever runs beside it and whatever stepped back; and the pages are really given back."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from tests.attention.stage import attend, mixed_spec, poison_free_pages, poisoned_store, spec_of
from tests.books import check_books
from tests.sched.drive import VOCAB, Job, apply, assert_clean, check_step, finish_full, scheduler_of
from umbel import registry
from umbel.attention.base import AttentionBackend
from umbel.attention.forget.kept import KeptAttention
from umbel.attention.pick import check_attention
from umbel.config import EngineConfig
from umbel.engine.inbox import check_arriving
from umbel.errors import UsageError
from umbel.ir.kv_shape import KVShape
from umbel.ir.spec import ModelSpec
from umbel.ir.step import Step
from umbel.runner.base import Wait, run_step
from umbel.runner.fake import FakeRunner
from umbel.sched.phases.forget import start_forgetting
from umbel.sched.policies.policy import Policy
from umbel.sched.scheduler import Scheduler

QUARTER = "budget=0.25"
ROWS = {row.name: row for row in registry.rows("forget")}
SMALL = {"sink-window": "sinks=4,window=40", "lag-kv": f"{QUARTER},lag=16"}  # others: a quarter
LARGER = {"sink-window": "sinks=4,window=116", "lag-kv": f"{QUARTER},lag=16"}
FULL = {"sink-window": "window=4000"}
EACH = pytest.mark.parametrize("name", ROWS)
SPEC = spec_of(2, 2, 16)
PAGE = 16
GREEDY = Policy(admission="aggressive")
After = Callable[[Scheduler], object]
Key = tuple[int, int, int]  # row, sample, position of the token that is drawn


@dataclass(frozen=True)
class Ran:
    """What attention gave the rows that were drawn from, what samples (row, sample) answered, and who decided it."""

    found: Mapping[Key, torch.Tensor]
    tokens: Mapping[tuple[int, int], list[int]]
    scheduler: Scheduler


class ForgetfulRunner(FakeRunner):
    """The runner without a model, whose memories hold the first and the last places of what they are made of."""

    def start(self, step: Step) -> Wait:
        """Make the edits, then run."""
        for edit in step.kept.edits if step.kept is not None else ():
            first = len(edit.targets) // 3
            last = len(edit.targets) - first
            self.slots[edit.targets] = np.append(self.slots[edit.sources[:first]], self.slots[edit.sources[-last:]])
        return super().start(step)


class Numbers:
    """Queries, keys and values that follow from a token and its position."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        heads = SPEC.n_heads + 2 * SPEC.n_kv_heads
        self.of_token = torch.randn(VOCAB, heads, SPEC.head_dim, generator=generator) * 2
        self.of_position = torch.randn(4096, heads, SPEC.head_dim, generator=generator)

    def qkv(self, tokens: np.ndarray, positions: np.ndarray) -> tuple[torch.Tensor, ...]:
        """The queries, keys and values of rows."""
        found = self.of_token[torch.from_numpy(tokens)] + self.of_position[torch.from_numpy(positions)]
        return found.split((SPEC.n_heads, SPEC.n_kv_heads, SPEC.n_kv_heads), 1)


def keeper_of(name: str, settings: str) -> object:
    """A keeper with settings."""
    return ROWS[name].load()(ROWS[name].settings_of(f"{name}:{settings}"), SPEC)


def scheduler_for(name: str, settings: str, job: Job, pages: int, chunk: int, policy: Policy = GREEDY) -> Scheduler:
    """A scheduler of a job that forgets, by name; '' for one that does not. By itself it lets in whatever fits now."""
    if not name:
        return scheduler_of(job, pages, PAGE, chunk, policy=policy)
    empty = scheduler_of(Job([], [], []), pages, PAGE, chunk, policy=policy)
    start_forgetting(empty, keeper_of(name, settings))
    return scheduler_of(job, pages, PAGE, chunk, lambda *_: empty)


def steps_of(
    job: Job, scheduler: Scheduler, tokens: dict[tuple[int, int], list[int]], after: After = lambda _: None
) -> Iterator[Step]:
    """Every step, before its result is applied, with all books checked behind it and what comes `after`. What was
    answered is put into `tokens`."""
    runner = ForgetfulRunner(scheduler.pool.n_pages, PAGE, VOCAB)
    while (step := scheduler.next()) is not None:
        check_step(step, scheduler.pool.n_pages, scheduler.chunk)
        yield step
        finish_full(job, scheduler, apply(scheduler, run_step(runner, step)), tokens)
        after(scheduler)
        check_books(scheduler)
    assert not scheduler.failed
    assert_clean(scheduler)


def stepping_back(often: int) -> After:
    """A sample steps back behind each `often`-th step (0: none does for nothing)."""
    return lambda scheduler: bool(often) and scheduler.steps % often == 0 and scheduler.books.give_way()


def ran(name: str, settings: str, job: Job, chunk: int, spare: int | None = None, often: int = 0) -> Ran:
    """Run a job in a pool of `spare` pages more than the largest row needs where nothing is forgotten (None: of all
    that can be used), in which pages that are free hold NaN."""
    pages = job.demand(PAGE) * 2 if spare is None else job.largest_row(PAGE) + spare
    scheduler, store = scheduler_for(name, settings, job, pages, chunk), poisoned_store(SPEC, pages, PAGE)
    backend: AttentionBackend = registry.load("attention", "native", SPEC, store, torch.device("cpu"))
    if name:
        backend = KeptAttention(backend, keeper_of(name, settings), SPEC, store)
    numbers, found, tokens = Numbers(), dict[Key, torch.Tensor](), dict[tuple[int, int], list[int]]()
    for step in steps_of(job, scheduler, tokens, stepping_back(often)):
        backend.prepare(step)
        got = attend(backend, *numbers.qkv(step.tokens, step.positions if step.kept is None else step.kept.positions))
        draws = step.sampling
        for key, row in zip(zip(draws.keys, draws.samples, draws.positions, strict=True), draws.at, strict=True):
            found[tuple(map(int, key))] = got[row].clone()
        poison_free_pages(scheduler.pool, store)
    return Ran(found, tokens, scheduler)


def a_job(others: int = 0) -> Job:
    """A prompt with an answer that passes edges, and others that fork from it, one of them with two samples."""
    rng = random.Random(1)
    base = [rng.randrange(VOCAB) for _ in range(230)]
    forks = [[*base[: 90 + 50 * i], *(rng.randrange(VOCAB) for _ in range(70))] for i in range(others)]
    return Job([base, *forks], [1] * (1 + others), [90, *(25 + i for i in range(others))])


def same(some: Ran, other: Ran) -> int:
    """How many rows are in both, which must be equal to the bit."""
    shared = some.found.keys() & other.found.keys()
    assert all(torch.equal(some.found[key], other.found[key]) for key in shared)
    return len(shared)


@EACH
def test_a_full_budget_is_dense_to_the_bit_and_a_small_one_is_not(name: str) -> None:
    dense = ran("", "", a_job(), 100)
    full = ran(name, FULL.get(name, "budget=1"), a_job(), 100)
    assert same(full, dense) == len(dense.found) == 90
    few = ran(name, SMALL.get(name, QUARTER), a_job(), 100)
    assert few.scheduler.kv.apart.places_forgotten > 100
    equal = [torch.equal(few.found[key], dense.found[key]) for key in dense.found]
    assert sum(equal) == 1  # the prompt's own, from which the first token is drawn


@EACH
def test_nothing_else_in_a_job_changes_what_a_row_sees(name: str) -> None:
    """Chunks, rows beside it that share its prompt, and a pool so small that rows step back."""
    alone = ran(name, SMALL.get(name, QUARTER), a_job(), 1000)
    beside = ran(name, SMALL.get(name, QUARTER), a_job(4), 1000)
    assert same(beside, alone) == len(alone.found)
    for chunk, spare, often in ((50, None, 11), (300, -1, 17)):
        again = ran(name, SMALL.get(name, QUARTER), a_job(4), chunk, spare, often)
        assert again.scheduler.preemptions > 1
        assert same(again, beside) == len(beside.found)


@EACH
def test_a_quarter_of_the_memory_holds_more_rows(name: str) -> None:
    rng = random.Random(3)
    prompts = [[rng.randrange(VOCAB) for _ in range(480)] for _ in range(12)]
    job = Job(prompts, [1] * 12, [40] * 12)
    row = job.largest_row(PAGE)
    ample, scarce = ([of(name, job, pages) for name in ("", name)] for pages in (12 * row, 5 * row))
    assert ample[0].peak_pages > 0.95 * 12 * row and scarce[0].peak_running == 5
    assert ample[1].peak_pages - 2 * row < 0.3 * 12 * row  # two prompts are whole while they are computed
    assert scarce[1].peak_running > 10


def of(name: str, job: Job, pages: int) -> Scheduler:
    """The scheduler of a job that has run, with the usual rules."""
    scheduler = scheduler_for(name, LARGER.get(name, QUARTER), job, pages, 600, Policy())
    for _ in steps_of(job, scheduler, {}):
        pass
    return scheduler


def test_what_cannot_be_asked_is_refused_by_name() -> None:
    for asked, why in (
        (("lag-kv:budget=0",), "budget=0: must be above 0 and at most 1"),
        (("lag-kv:lag=half",), "lag='half': must be a whole number of at least 1"),
        (("sink-window:window=0",), "window='0': must be a whole number of at least 1"),
        (("sink-window:budget=0.5",), "'budget' is no setting of .*sinks, window"),
        (("sink-window", "lag-kv"), "what one forgets the other cannot read"),
        (("pages", "lag-kv"), "what one forgets the other cannot read"),
    ):
        with pytest.raises(UsageError, match=why):
            EngineConfig("demo", technique=asked, allow_lossy=True)
    with pytest.raises(UsageError, match="may change answers"):
        EngineConfig("demo", technique=("lag-kv",))
    with pytest.raises(UsageError, match="use replicas"):
        EngineConfig("demo", technique=("lag-kv",), allow_lossy=True, tensor_parallel_size=2)
    config = EngineConfig("demo", technique=("lag-kv",), allow_lossy=True)
    with pytest.raises(UsageError, match="technique='lag-kv': sessions keep prompts"):
        check_arriving(config)


@pytest.mark.parametrize(
    ("spec", "changed", "why"),
    [
        (spec_of(2, 2, 16, window=32), {}, "windows of 32 positions"),
        (spec_of(2, 2, 16), {"keep": "lru"}, "keep='lru' keeps prompts"),
        (mixed_spec(KVShape(4, 1, 24, 16, 0.2, values_in_keys=True)), {}, "one vector for keys and values"),
    ],
)
def test_a_model_that_cannot_forget_is_refused_by_name(spec: ModelSpec, changed: dict[str, str], why: str) -> None:
    config = EngineConfig("demo", technique=("lag-kv",), allow_lossy=True, **changed)
    with pytest.raises(UsageError, match=f"technique='lag-kv': .*{why}"):
        check_attention(config, spec, torch.float32, torch.device("cpu"))
