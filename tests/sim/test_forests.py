"""Forests in whole blocks and in pieces, held to prompts put together again and to plain sets of blocks."""

from __future__ import annotations

import random

import numpy as np
import pytest

from umbel.ir.forest import Forest
from umbel.ir.params import SamplingParams
from umbel.ir.workload import Workload
from umbel.plan.passes.prefix import build_forest
from umbel.sim.forests import in_pieces, whole_blocks


def random_workload(seed: int) -> Workload:
    """Prompts over two letters, some cut from others, some equal: many runs of odd lengths."""
    draw = random.Random(seed)
    prompts: list[list[int]] = []
    for _ in range(draw.randrange(1, 30)):
        base = draw.choice(prompts) if prompts and draw.random() < 0.8 else []
        kept = base[: draw.randrange(len(base) + 1)] if draw.random() < 0.8 else base
        prompts.append([*kept, *(draw.randrange(2) for _ in range(draw.randrange(12)))] or [0])
    return Workload.of(prompts, SamplingParams())


def check(forest: Forest, workload: Workload) -> None:
    """What ir.forest promises, node by node, in the plainest way."""
    n = forest.n_nodes
    assert (forest.end > forest.start).all()
    paths = []
    for row in range(len(workload)):
        node, path = int(forest.leaf[row]), []
        while node >= 0:
            path.append(node)
            node = int(forest.parent[node])
        path.reverse()
        paths.append(path)
        parts = [workload.prompt(int(forest.source[v]))[forest.start[v] : forest.end[v]] for v in path]
        assert np.concatenate(parts).tolist() == workload.prompt(row).tolist()
    for v in range(n):
        parent = int(forest.parent[v])
        assert forest.start[v] == (forest.end[parent] if parent >= 0 else 0)
        inside = {u for u in range(n) if v in ancestors(forest, u)}
        assert inside == set(range(v, int(forest.subtree_end[v])))
        assert forest.rows_below[v] == sum(v in path for path in paths)
    assert sorted(forest.order.tolist()) == list(range(len(workload)))
    assert (np.diff(forest.leaf[forest.order]) >= 0).all()


def ancestors(forest: Forest, node: int) -> set[int]:
    found = set()
    while node >= 0:
        found.add(node)
        node = int(forest.parent[node])
    return found


@pytest.mark.parametrize("block", [1, 4])
@pytest.mark.parametrize("seed", range(40))
def test_whole_blocks_share_what_a_block_cache_shares(seed: int, block: int) -> None:
    workload = random_workload(seed)
    forest = whole_blocks(build_forest(workload), block)
    check(forest, workload)
    shared = forest.rows_below > 1
    assert (forest.start % block == 0).all()
    assert (forest.end[shared] % block == 0).all()
    # A block cache holds each distinct chain of blocks once; what is behind a row's last whole block is its own.
    blocks, own = set(), 0
    for row in range(len(workload)):
        ids = workload.prompt(row).tolist()
        whole = len(ids) // block * block
        blocks |= {tuple(ids[:end]) for end in range(block, whole + 1, block)}
        own += len(ids) - whole
    assert forest.n_tokens == len(blocks) * block + own


@pytest.mark.parametrize("size", [1, 3, 8])
@pytest.mark.parametrize("seed", range(20))
def test_pieces_are_the_same_prompts_cut_finer(seed: int, size: int) -> None:
    workload = random_workload(seed)
    whole = build_forest(workload)
    forest = in_pieces(whole, size)
    check(forest, workload)
    assert forest.n_tokens == whole.n_tokens
    assert ((forest.end - forest.start)[forest.rows_below > 1] <= size).all()


def test_forests_without_rows() -> None:
    empty = build_forest(Workload.of([], SamplingParams()))
    assert in_pieces(whole_blocks(empty, 16), 16).n_nodes == 0
