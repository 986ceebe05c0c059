"""The reference reads what a view leaves of a path, for each KV head: against loops over single keys in numpy."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.attention.stage import (
    attend,
    mixed_spec,
    poisoned_store,
    random_job,
    random_qkv,
    random_sinks,
    spec_of,
    steps_of,
)
from tests.kv.test_slots import slot_by_hand
from tests.sched.drive import VOCAB, Job
from umbel.attention.reference import ReferenceAttention
from umbel.ir.kv_shape import KVShape
from umbel.ir.step import Step
from umbel.kernels.view import GRID, View
from umbel.kv.slots import row_nodes


def random_view(step: Step, rng: random.Random, n_kv_heads: int = 2) -> View:
    """Some cells for each KV head of some tiles of rows, of which rows are here and there."""
    cells, tiles = int(step.positions.max()) // GRID + 1, rng.randint(1, 4)
    reads = torch.tensor(
        [[[rng.random() < 0.5 for _ in range(cells)] for _ in range(n_kv_heads)] for _ in range(tiles)]
    )
    runs = [tile for _ in range(step.n_rows) for tile in [rng.randrange(tiles)] * rng.randint(1, 40)]
    return View(torch.tensor(runs[: step.n_rows], dtype=torch.int32), reads)


def reads(view: View, step: Step, row: int, position: int, head: int) -> bool:
    """Whether a KV head of a row reads the key at a position of its path."""
    own = int(step.positions[row]) // GRID
    return position // GRID == own or bool(view.reads[view.tile_of[row], head, position // GRID])


def by_hand(
    shape: KVShape,
    step: Step,
    view: View,
    q: torch.Tensor,
    kept: dict[int, tuple[np.ndarray, np.ndarray]],
    sinks: torch.Tensor | None,
) -> np.ndarray:
    """The attention of every row, key by key."""
    out = np.zeros((*q.shape[:2], shape.value_dim))
    for row, own in enumerate(row_nodes(step).tolist()):
        for head in range(shape.n_heads):
            kv_head, scores, values = head // shape.group_size, [], []
            for position in range(int(step.positions[row]) + 1):
                node = own
                while position < step.start[node]:
                    node = int(step.parent[node])
                in_window = shape.window is None or position > step.positions[row] - shape.window
                if in_window and reads(view, step, row, position, kv_head):
                    key, value = kept[slot_by_hand(step, node, position)]
                    score = float(q[row, head].double().numpy() @ key[kv_head]) * shape.scale
                    scores.append(score if shape.cap is None else shape.cap * np.tanh(score / shape.cap))
                    values.append(value[kv_head])
            if sinks is not None:
                scores.append(float(sinks[head]))
                values.append(np.zeros(shape.value_dim))
            weights = np.exp(np.array(scores) - max(scores))
            out[row, head] = weights @ np.array(values) / weights.sum()
    return out


@pytest.mark.parametrize(
    ("seed", "shape"),
    [
        (0, KVShape(4, 2, 8, 8, 0.3)),
        (1, KVShape(4, 2, 8, 12, 0.3)),
        (2, KVShape(4, 2, 8, 8, 0.3, window=150)),
        (3, KVShape(4, 2, 8, 8, 1.0, cap=2.0)),
        (4, KVShape(4, 2, 8, 8, 0.3, sinks=True)),
        (5, KVShape(4, 2, 8, 6, 1.0, window=150, cap=2.0, sinks=True)),
    ],
)
def test_the_reference_obeys(seed: int, shape: KVShape) -> None:
    rng = random.Random(seed)
    base = [rng.randrange(VOCAB) for _ in range(130)]
    spec, job = mixed_spec(shape), Job([[*base, 1], [*base[:127], 2, 3, 4]], [1, 1], [2, 2])
    backend = ReferenceAttention(spec, poisoned_store(spec, job.demand(4), 4))
    generator, left = torch.Generator().manual_seed(seed), 0
    kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for _, step in steps_of(job, job.demand(4), 4, 90):
        q, k, v = random_qkv(spec, step.n_rows, generator, torch.float32)
        view = random_view(step, rng)
        backend.prepare(step)
        for row, node in enumerate(row_nodes(step).tolist()):
            if step.fresh[row]:
                slot = slot_by_hand(step, node, int(step.positions[row]))
                kept[slot] = k[row].double().numpy(), v[row].double().numpy()
        sinks = random_sinks(shape, generator)
        got = attend(backend, q, k, v, view, sinks=sinks)
        np.testing.assert_allclose(got.numpy(), by_hand(shape, step, view, q, kept, sinks), atol=1e-5)
        left += int((~view.reads).sum())
    assert left


def test_a_view_of_everything_changes_nothing_and_one_of_nothing_leaves_a_row_its_own_cell() -> None:
    spec, job = spec_of(2, 3, 8), random_job(random.Random(3), 2, longest=140, out=3)
    backend = ReferenceAttention(spec, poisoned_store(spec, job.demand(4), 4))
    windowed = ReferenceAttention(spec_of(2, 3, 8, window=1), backend.store)
    generator, some = torch.Generator().manual_seed(0), 0
    for _, step in steps_of(job, job.demand(4), 4, 90):
        q, k, v = random_qkv(spec, step.n_rows, generator, torch.float32)
        backend.prepare(step), windowed.prepare(step)
        every = View.whole(step.n_rows, 2, int(step.positions.max()) // GRID + 1)
        assert torch.equal(attend(backend, q, k, v, every), attend(backend, q, k, v))
        got = attend(backend, q, k, v, replace(every, reads=~every.reads))
        first = torch.from_numpy(step.positions % GRID == 0)  # of a cell: reads itself alone
        assert torch.equal(got[first], attend(windowed, q, k, v)[first])
        some += int((step.positions >= GRID).sum())
    assert some > 10


def test_views_that_do_not_fit_are_refused() -> None:
    view = View.whole(3, 2, 1)
    for wrong, why in (
        (replace(view, reads=view.reads.float()), "torch.float32 cells, not int32 and bool"),
        (replace(view, tile_of=view.tile_of + 1), "tile 1 at most, of 1"),
        (replace(view, reads=view.reads.expand(4, 2, 1)), "for 3 rows and 2 KV heads"),
        (View.whole(2, 2, 1), "for 3 rows and 2 KV heads"),
        (View.whole(3, 1, 1), "for 3 rows and 2 KV heads"),
    ):
        with pytest.raises((TypeError, ValueError), match=why):
            wrong.check(3, 2)
