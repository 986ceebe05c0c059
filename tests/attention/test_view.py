"""The reference reads what a view leaves of a path, for each KV head: against loops over single keys in numpy."""

from __future__ import annotations

import random
from itertools import pairwise

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
from umbel.attention.reference import ReferenceAttention
from umbel.attention.view import Piece, View
from umbel.ir.kv_shape import KVShape
from umbel.ir.step import Step
from umbel.kv.slots import row_nodes


def random_view(step: Step, rng: random.Random) -> View:
    """For two KV heads, some blocks of some nodes, for some of the rows that have them on their path (and of others,
    which is no matter); no two pieces are of one node and row."""
    block, pieces = rng.choice((1, 3, 16)), []
    for node in rng.sample(range(len(step.parent)), rng.randint(0, len(step.parent))):
        blocks = -(-int(step.end[node] - step.start[node]) // block)
        cuts = sorted(rng.sample(range(step.n_rows + 1), min(3, step.n_rows + 1)))
        for begin, end in pairwise(cuts):
            reads = torch.tensor([[rng.random() < 0.5 for _ in range(blocks)] for _ in range(2)])
            pieces.append(Piece(node, begin, end, reads))
    return View(block, tuple(pieces))


def reads(view: View, step: Step, row: int, node: int, position: int, head: int) -> bool:
    """Whether a KV head of a row reads the key at a position of a node."""
    if position == step.positions[row]:
        return True
    found = [p for p in view.pieces if p.node == node and p.begin <= row < p.end]
    return all(bool(p.blocks[head, (position - int(step.start[node])) // view.block]) for p in found)


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
                if in_window and reads(view, step, row, node, position, kv_head):
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
        (2, KVShape(4, 2, 8, 8, 0.3, window=20)),
        (3, KVShape(4, 2, 8, 8, 1.0, cap=2.0)),
        (4, KVShape(4, 2, 8, 8, 0.3, sinks=True)),
        (5, KVShape(4, 2, 8, 6, 1.0, window=20, cap=2.0, sinks=True)),
    ],
)
def test_the_reference_obeys(seed: int, shape: KVShape) -> None:
    rng = random.Random(seed)
    spec, job = mixed_spec(shape), random_job(rng, 4, longest=40, out=3)
    backend = ReferenceAttention(spec, poisoned_store(spec, job.demand(4), 4))
    generator, pieces = torch.Generator().manual_seed(seed), 0
    kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for _, step in steps_of(job, job.demand(4), 4, 30):
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
        pieces += len(view.pieces)
    assert pieces > 10


def test_a_view_of_everything_changes_nothing_and_one_of_nothing_leaves_a_row_its_own_key() -> None:
    spec, job = spec_of(2, 3, 8), random_job(random.Random(3), 4, longest=40, out=3)
    backend = ReferenceAttention(spec, poisoned_store(spec, job.demand(4), 4))
    generator = torch.Generator().manual_seed(0)
    for _, step in steps_of(job, job.demand(4), 4, 30):
        q, k, v = random_qkv(spec, step.n_rows, generator, torch.float32)
        backend.prepare(step)
        nodes = range(len(step.parent))
        every, none = (
            View(64, tuple(Piece(n, 0, step.n_rows, torch.full((2, 8), flag)) for n in nodes)) for flag in (True, False)
        )
        assert torch.equal(attend(backend, q, k, v, every), attend(backend, q, k, v))
        own = torch.from_numpy(step.fresh)
        got = attend(backend, q, k, v, none)
        assert torch.equal(got[own], v.repeat_interleave(3, 1)[own])
