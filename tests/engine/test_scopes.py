"""Rows whose KV depends on more than their tokens share it only with rows of their scope, whichever way they come."""

from __future__ import annotations

import numpy as np

from tests.engine.test_arrivals import loop_of
from umbel.engine.loop import Loop
from umbel.ir.params import SamplingParams
from umbel.ir.selection import join
from umbel.ir.workload import Workload
from umbel.plan.passes.prefix import build_forest
from umbel.runner.fake import FakeRunner
from umbel.sched.lot import Lot

PROMPT = [5, 6, 7, 8, 9, 10, 11, 12]
PARAMS = SamplingParams(temperature=0.0, max_tokens=6, ignore_eos=True)


def rows(*scopes: int, first: int = 0) -> Workload:
    keys = range(first, first + len(scopes))
    return Workload.of([PROMPT] * len(scopes), PARAMS, list(keys), scope=list(scopes))


def add(loop: Loop, load: Workload) -> None:
    loop.add_lot(Lot(load, build_forest(load), [()] * len(load), np.full(len(load), 6)))


def started() -> Loop:
    """A loop in which later rows find what is held."""
    loop = loop_of(FakeRunner(64, 4, 97), 64, 64)
    loop.scheduler.reuse()
    return loop


def test_rows_that_were_joined_keep_their_scopes() -> None:
    both = join([rows(1, 2), rows(1, first=2), Workload.of([PROMPT], PARAMS, [3])])
    assert both.scope is not None and both.scope.tolist() == [1, 2, 1, 0]
    assert len(build_forest(both).end) == 4 - 1, "the two of one scope share their prompt"
    unscoped = [Workload.of([PROMPT], PARAMS, [i]) for i in range(2)]
    assert join(unscoped).scope is None and len(build_forest(join(unscoped)).end) == 1


def test_rows_of_another_scope_compute_their_own() -> None:
    loop = started()
    for key, (scope, computed) in enumerate([(1, 8), (2, 16), (1, 16), (2, 16), (0, 24)]):
        add(loop, rows(scope, first=key))
        assert len(list(loop.run())) == 1
        assert loop.stats().computed_prompt_tokens == computed


def test_a_row_that_is_taken_up_again_finds_what_is_of_its_scope() -> None:
    loop = started()
    add(loop, rows(1, 2))
    for _ in range(3):
        loop.step()
    record = loop.abort(1)
    assert record.scope == 2
    before = loop.stats().computed_prompt_tokens
    loop.resume(record, 7)
    list(loop.run())
    assert loop.stats().computed_prompt_tokens == before, "its prompt is held, in its scope"
    other = started()
    add(other, rows(1))
    list(other.run())
    other.resume(record, 7)
    list(other.run())
    assert other.stats().computed_prompt_tokens == 2 * len(PROMPT), "and not taken from another scope"
