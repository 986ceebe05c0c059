"""Random lives of rows in a loop, held after each move against a model that knows nothing of pages, steps or trees."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.books import check_books
from tests.drafters import Scripted
from tests.engine.test_ahead import ENDS, Ahead
from tests.sched.drive import MIX, VOCAB, _mark
from umbel.cache.pages import PagePool
from umbel.engine.loop import Loop
from umbel.ir.params import SamplingParams
from umbel.ir.request import Output
from umbel.ir.resumable import Resumable
from umbel.ir.workload import Workload
from umbel.plan.passes.prefix import build_forest
from umbel.runner.fake import FakeRunner
from umbel.sched.lot import Defaults, Lot, Standing
from umbel.sched.phases.speculate import Speculate
from umbel.sched.policies.policy import Policy
from umbel.sched.scheduler import Scheduler
from umbel.spec.base import Constant

EXAMPLES = int(os.environ.get("UMBEL_MACHINE_EXAMPLES", "60"))
CONTEXT = 48


@dataclass
class Life:
    """A sample as one plain request: what it must say follows from its prompt, its number and the tokens it has."""

    prompt: list[int]
    sample: int
    limit: int
    has: list[int]

    def answer(self) -> tuple[int, ...]:
        """All its tokens: each a hash of those before it, as the fake runner gives them."""
        tokens = list(self.has)
        while len(tokens) < self.limit and not (len(tokens) > len(self.has) and tokens[-1] in ENDS):
            total = sum(_mark(p, t) for p, t in enumerate([*self.prompt, *tokens])) + self.sample * MIX
            tokens.append((total * MIX >> 33) % VOCAB)
        return tuple(tokens)


class Lives(RuleBasedStateMachine):
    """Rows come, fork, are given tokens, lose their pages, are taken out and in again, and leave."""

    @initialize(
        ahead=st.booleans(),
        chunk=st.sampled_from((1, 3, 16, 200)),
        pool=st.sampled_from(((1, CONTEXT + 2), (1, 120), (4, 400))),
        admission=st.sampled_from(("past-future", "aggressive")),
        queue=st.sampled_from(("plan", "priority", "fair", "deadline")),
        keeps=st.booleans(),
        right=st.sampled_from((None, 0.0, 0.7, 1.0)),
        most=st.sampled_from((1, 5)),
    )
    def begin(
        self,
        ahead: bool,
        chunk: int,
        pool: tuple[int, int],
        admission: str,
        queue: str,
        keeps: bool,
        right: float | None,
        most: int,
    ) -> None:
        (page, pages), runner = pool, FakeRunner(pool[1], pool[0], VOCAB)
        speculate = None if right is None else Speculate(Scripted(self._whole, right, (*ENDS, 0)), Constant(most))
        scheduler = Scheduler(
            PagePool(pages, page), chunk, Policy(queue=queue, admission=admission), speculate=speculate
        )
        if keeps:
            scheduler.reuse()
        self.loop = Loop(scheduler, Ahead(runner) if ahead else runner, None, Defaults(0, ENDS, CONTEXT))
        self.lives: dict[tuple[int, int], Life] = {}  # by row and sample, of rows that are not out
        self.forked: dict[int, int] = {}  # root of each row
        self.numbers: dict[int, int] = {}  # per root, sample numbers given out
        self.taken: list[tuple[Resumable, dict[int, Life], int]] = []

    @rule(
        prompts=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=20), min_size=1, max_size=3),
        n=st.sampled_from((1, 1, 1, 2)),
        out=st.integers(1, 14),
        priority=st.integers(-1, 1),
    )
    def add(self, prompts: list[list[int]], n: int, out: int, priority: int) -> None:
        params = SamplingParams(n=n, temperature=1.0, max_tokens=out)
        load = Workload.of(prompts, params)
        limits, standing = np.full(len(prompts), out), Standing.alike(len(prompts), priority, out % 2, -out)
        first = self.loop.add_lot(Lot(load, build_forest(load), [ENDS] * len(prompts), limits, standing=standing))
        for row, prompt in enumerate(prompts, first):
            self.forked[row], self.numbers[row] = row, n
            self.lives |= {(row, i): Life(prompt, i, out, []) for i in range(n)}
        check_books(self.loop.scheduler)

    @rule(times=st.integers(1, 6))
    def step(self, times: int) -> None:
        for _ in range(times):
            self._step()

    @precondition(lambda self: self.lives)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        row, _ = data.draw(st.sampled_from(sorted(self.lives)))
        self.loop.cancel(row)
        self._gone(row)
        check_books(self.loop.scheduler)

    @precondition(lambda self: self.lives)
    @rule(data=st.data(), count=st.integers(1, 3))
    def fork(self, data: st.DataObject, count: int) -> None:
        if (found := self._open(data)) is None:
            return
        row, sample, life, has = found
        root = self.forked[row]
        before = self.loop.scheduler.computed_tokens, self.loop.scheduler.recomputed_tokens
        rows = self.loop.fork(row, sample, range(count))
        for child, number in zip(rows, range(self.numbers[root], self.numbers[root] + count), strict=True):
            self.forked[child] = root
            self.lives[child, number] = Life(life.prompt, number, life.limit, has)
        self.numbers[root] += count
        check_books(self.loop.scheduler)
        assert before == (self.loop.scheduler.computed_tokens, self.loop.scheduler.recomputed_tokens)

    @precondition(lambda self: self.lives)
    @rule(data=st.data(), tokens=st.lists(st.integers(0, 9), min_size=1, max_size=5))
    def append(self, data: st.DataObject, tokens: list[int]) -> None:
        if (found := self._open(data)) is None:
            return
        row, sample, life, has = found
        room = CONTEXT - len(life.prompt)
        if len(has) + len(tokens) < room:
            self.loop.append(row, sample, tokens)
            life.has, life.limit = [*has, *tokens], min(life.limit + len(tokens), room)
        check_books(self.loop.scheduler)

    @rule()
    def preempt(self) -> None:
        """The last one loses its pages, as when the pool is short."""
        self.loop.scheduler.books.give_way()
        check_books(self.loop.scheduler)

    @precondition(lambda self: self.lives)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        if (found := self._open(data)) is None:
            return
        row = found[0]
        record = self.loop.abort(row)
        lives = {sample: life for (r, sample), life in self.lives.items() if r == row}
        for one in record.open:
            assert one.token_ids == lives[one.sample].answer()[: len(one.token_ids)]
        for done in record.finished:
            assert done.token_ids == lives[done.index].answer()
        self._gone(row)
        self.taken.append((record, lives, self.numbers[self.forked[row]]))
        check_books(self.loop.scheduler)

    @precondition(lambda self: self.taken)
    @rule(data=st.data(), priority=st.integers(-1, 1))
    def resume(self, data: st.DataObject, priority: int) -> None:
        record, lives, numbers = self.taken.pop(data.draw(st.integers(0, len(self.taken) - 1)))
        assert record.next_sample == numbers
        row = self.loop.resume(record, 0, standing=Standing.alike(1, priority, 1))
        self.forked[row], self.numbers[row] = row, numbers
        self.lives |= {(row, sample): life for sample, life in lives.items()}
        check_books(self.loop.scheduler)

    def teardown(self) -> None:
        for _ in range(20_000):
            if not hasattr(self, "loop") or not self.loop.busy:
                break
            self._step()
        else:
            raise AssertionError("no end after 20,000 steps")
        if hasattr(self, "loop"):
            pool = self.loop.scheduler.pool
            speculate = self.loop.scheduler.speculate
            assert speculate is None or not speculate.drafter.has  # type: ignore[attr-defined]
            assert not self.lives and self.loop.scheduler.kv.make_room(pool.n_pages) and pool.used == 0

    def _open(self, data: st.DataObject) -> tuple[int, int, Life, list[int]] | None:
        """A sample that is not done once all steps are seen through, and the tokens that it has, as it must."""
        self.loop._see_through()
        row, sample = data.draw(st.sampled_from(sorted(self.lives)))
        scheduler = self.loop.scheduler
        ranks = scheduler.waiting.ranks_of(row)
        rank = next(r for r in ranks if scheduler.waiting.samples[r] == sample)
        if rank not in scheduler.seqs.slot_of and not scheduler.waiting.waits(rank):
            return None
        life, has = self.lives[row, sample], list(self.loop.steering.tokens_of(rank))
        assert tuple(has) == life.answer()[: len(has)] and len(has) >= len(life.has)
        return row, sample, life, has

    def _whole(self, rank: int) -> tuple[int, ...]:
        """What a drafter proposes from: the answer as it will be by what is known now."""
        waiting = self.loop.scheduler.waiting
        return self.lives[int(waiting.rows[rank]), int(waiting.samples[rank])].answer()

    def _gone(self, row: int) -> None:
        self.lives = {key: life for key, life in self.lives.items() if key[0] != row}

    def _step(self) -> None:
        for event in self.loop.step():
            assert isinstance(event, Output) and event.error is None, event
            said = {c.index: c.token_ids for c in event.outputs}
            if any(key[0] == event.row for key in self.lives):  # it may have been cancelled when it was out already
                wanted = {sample: life.answer() for (row, sample), life in self.lives.items() if row == event.row}
                assert said == wanted, (event.row, said, wanted)
            self._gone(event.row)
        check_books(self.loop.scheduler)


TestLives = Lives.TestCase
TestLives.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=30,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
