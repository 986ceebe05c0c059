"""What is counted of the keys that selectors leave, against a count by hand of each row's view; and their prices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.attention.stage import attend, poisoned_store, spec_of, steps_of
from tests.conformance.test_select import EACH, ROWS, SHARE, Paths, backend_of, long_job
from umbel.attention.select.selected import SelectedAttention
from umbel.attention.select.tally import KeyTally
from umbel.attention.select.tiles import RowTiles
from umbel.ir.kv_shape import KVShape
from umbel.ir.step import Step
from umbel.kernels.view import GRID, View

SPEC = spec_of(2, 2, 16)


class Spied:
    """A backend that keeps the view of the last call."""

    def __init__(self, inner: object):
        self.inner, self.view = inner, None
        self.prepare, self.place = inner.prepare, inner.place

    def attend(self, layer: int, q: torch.Tensor, select: View | None = None, sinks: object = None) -> torch.Tensor:
        self.view = select
        return self.inner.attend(layer, q, select)


def by_hand(step: Step, view: View | None) -> list[float]:
    """The keys that each row reads: the mean of the heads."""
    if view is None:
        return [float(p + 1) for p in step.positions]
    reads = [view.reads[tile].repeat_interleave(GRID, 1) for tile in view.tile_of.tolist()]
    found = []
    for row, p in zip(reads, step.positions.tolist(), strict=True):
        own = p // GRID * GRID
        found.append(float(row[:, :own].sum()) / len(row) + p + 1 - own)
    return found


@EACH
@pytest.mark.parametrize("share", [0.3, 1])
def test_what_is_counted_is_what_rows_read_and_no_more_than_the_price(name: str, share: float) -> None:
    job = long_job(1)
    store, paths = poisoned_store(SPEC, pages := job.demand(16), 16), Paths(pages, 16)
    selector = ROWS[name].load()(ROWS[name].settings_of(f"{name}:{SHARE[name]}={share}"), SPEC)
    spied, tally = Spied(backend_of(SPEC, store)), KeyTally(1)
    backend = SelectedAttention(spied, [selector], SPEC, store, tally)
    read = whole = 0.0
    for _, step in steps_of(job, pages, 16, 700):
        backend.prepare(step)
        attend(backend, *paths.qkv(step))
        rows, keys = np.array(by_hand(step, spied.view)), step.positions + 1
        answers = np.repeat(step.answers, step.row_end - step.row_begin)
        own = answers if ROWS[name].rows == "answers" else ~answers
        assert (rows[~own] == keys[~own]).all()
        assert (rows[own] <= selector.keys_read(keys[own])).all()
        if name == "pages":  # whose price is no bound but what is read
            assert (rows[own] == selector.keys_read(keys[own])).all()
        read, whole = read + rows.sum(), whole + keys.sum()
    assert tally.read == pytest.approx(read) and tally.whole == whole
    assert (read < whole) == (share != 1)


def test_windows_are_counted_in_whole_cells() -> None:
    """A token at position 1,000 with a window of 300 sees cells 5 to 7, of which the last is its own."""
    shape, tally = KVShape(1, 1, 16, 16, 1.0, window=300), KeyTally(1)
    step = Step(*(np.array([v]) for v in (5, 1000, True, -1, 0, 1001, 0, 1, 1)), np.arange(63), np.array([0]), 16, None)
    tally.open(step, RowTiles.of(step))
    reads = torch.ones(1, 1, 8, dtype=torch.bool)
    reads[0, 0, 6] = reads[0, 0, 0] = False
    tally.add(View(torch.zeros(1, dtype=torch.int32), reads), shape)
    own = 1000 % GRID + 1
    assert (tally.read, tally.whole) == (GRID + own, 2 * GRID + own)
