"""From positions to slots: own nodes, ancestors, rows that must not be written again; and the store that holds them."""

from __future__ import annotations

import random

import numpy as np
import torch

from tests.attention.stage import CPU, random_job, spec_of, steps_of
from umbel.kv.slots import path_slots, row_nodes, slots_of, write_slots
from umbel.kv.store import KVStore


def slot_by_hand(step, node: int, position: int) -> int:
    while position < step.start[node]:
        node = int(step.parent[node])
    page, offset = divmod(position - int(step.start[node]), step.page_size)
    return int(step.pages[step.page_begin[node] + page]) * step.page_size + offset


def test_slots_by_hand() -> None:
    rng = random.Random(2)
    for page_size, chunk in ((1, 50), (4, 200), (16, 5000)):
        job = random_job(rng, 6, longest=140)
        scratch = job.demand(page_size) * page_size
        for _, step in steps_of(job, job.demand(page_size), page_size, chunk):
            node = row_nodes(step)
            own = [slot_by_hand(step, int(n), int(p)) for n, p in zip(node, step.positions, strict=True)]
            assert slots_of(step, node, step.positions).tolist() == own
            expected = [s if f else scratch for s, f in zip(own, step.fresh.tolist(), strict=True)]
            assert write_slots(step, scratch).tolist() == expected
            assert len(set(expected) - {scratch}) == int(step.fresh.sum()), "two rows write to one slot"
            some = np.array(rng.choices(range(len(step.parent)), k=5))
            last = step.end[some].min() - 1
            positions = np.array([[rng.randint(0, int(last)) for _ in range(7)] for _ in some])
            by_hand = [[slot_by_hand(step, int(n), int(p)) for p in ps] for n, ps in zip(some, positions, strict=True)]
            assert path_slots(step, some, positions).tolist() == by_hand


def test_the_store_writes_where_it_is_told_and_nowhere_else() -> None:
    spec = spec_of(2, 2, 8)
    store = KVStore(spec, 4, 4, torch.float32, CPU)
    assert store.scratch == 16 and store.keys[0].shape == (2, 20, 8)
    for tensor in store.keys + store.values:
        tensor.zero_()
    k, v = torch.randn(3, 2, 8), torch.randn(3, 2, 8)
    store.place(0, torch.tensor([5, 0, 11])).write(k, v)
    for row, slot in enumerate((5, 0, 11)):
        assert torch.equal(store.keys[0][:, slot], k[row]) and torch.equal(store.values[0][:, slot], v[row])
    others = [s for s in range(20) if s not in (5, 0, 11)]
    assert not store.keys[0][:, others].any() and not store.values[0][:, others].any()
