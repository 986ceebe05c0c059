"""The list of work of GPU attention against brute force: every row reads each key it may see once, and no other."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tests.attention.stage import random_job, steps_of
from tests.sched.drive import Job
from umbel.attention.work import Cut, Work, list_work, shared_nodes
from umbel.ir.step import Step
from umbel.kv.slots import path_slots, row_nodes


def slots_read(step: Step, work: Work, window: int | None) -> list[list[tuple[int, int]]]:
    """For each row the (position, slot) of every key that its items read and its mask lets through."""
    seen: list[list[tuple[int, int]]] = [[] for _ in range(step.n_rows)]
    for row, count, begin, end, _ in work.items.tolist():
        for entry, inside, first, keys in work.runs[begin:end].tolist():
            place = inside + np.arange(keys)
            slots = step.pages[entry + place // step.page_size] * step.page_size + place % step.page_size
            for r in range(row, row + count):
                at = int(step.positions[r])
                low = -1 if window is None else at - window
                pairs = zip(range(first, first + keys), slots.tolist(), strict=True)
                seen[r] += [(position, slot) for position, slot in pairs if low < position <= at]
    return seen


@pytest.mark.parametrize("window", [None, 1, 50, 200])
@pytest.mark.parametrize(("rows", "keys", "share_factor"), [(1, 16, 1e9), (4, 64, 0.5), (16, 256, 0.0), (5, 37, 2.0)])
def test_every_key_is_read_once(rows: int, keys: int, share_factor: float, window: int | None) -> None:
    rng = random.Random(rows * keys)
    for page_size in (1, 16):
        job = random_job(rng, 10, out=6)
        for _, step in steps_of(job, job.demand(page_size), page_size, 150):
            work = list_work(step, Cut(rows, keys, 2, window, share_factor))
            found = slots_read(step, work, window)
            for row, node in enumerate(row_nodes(step)):
                last = int(step.positions[row])
                first = 0 if window is None else max(0, last + 1 - window)
                positions = np.arange(first, last + 1)
                wanted = path_slots(step, node[None], positions[None])[0].tolist()
                assert sorted(found[row]) == list(zip(positions.tolist(), wanted, strict=True))


def test_partial_results_have_places_of_their_own() -> None:
    """Items whose rows all have one item write straight out; the others' places are disjoint, and every row that has
    one merges exactly those of its items, in their order."""
    rng = random.Random(3)
    job = random_job(rng, 12, out=6)
    merged = 0
    for _, step in steps_of(job, job.demand(16), 16, 200):
        work = list_work(step, Cut(4, 48, 3, None, 2.0))
        of_row: list[list[int]] = [[] for _ in range(step.n_rows)]
        taken: set[int] = set()
        for row, count, _, _, place in work.items.tolist():
            for i in range(count):
                of_row[row + i].append(place + 3 * i if place >= 0 else -1)
            if place >= 0:
                mine = set(range(place, place + 3 * count))
                assert not mine & taken and max(mine) < work.queries
                taken |= mine
        assert len(taken) == work.queries
        found = {row: work.entries[begin:end].tolist() for row, begin, end in work.merges.tolist()}
        assert found == {row: places for row, places in enumerate(of_row) if places != [-1]}
        assert all(-1 not in places or places == [-1] for places in of_row)
        merged += len(found)
    assert merged > 100


def test_long_runs_are_cut() -> None:
    """Pieces are at most about twice as long as asked, however the keys are spread over nodes."""
    rng = random.Random(4)
    job = random_job(rng, 12, out=6)
    for _, step in steps_of(job, job.demand(16), 16, 200):
        work = list_work(step, Cut(4, 32, 2))
        for _, _, begin, end, _ in work.items.tolist():
            assert work.runs[begin:end, 3].sum() < 64


def test_sharing_has_to_pay() -> None:
    """A long prefix with many readers gets a pass of its own, a short one does not, nor what one row reads."""
    for length, pays in ((512, True), (1, False)):
        prompts = [[1] * length + [2 + i] for i in range(8)]
        job = Job(prompts, [1] * 8, [4] * 8)
        last = [step for _, step in steps_of(job, job.demand(16), 16, 1000)][-1]
        shared = shared_nodes(last, Cut(16, 256, 2))
        readers = last.below_end - last.row_begin
        assert bool(shared[readers == 8].all()) is pays and (readers == 8).any()
        assert not shared[readers == 1].any()
