"""Prompts cut at their documents, and what is counted of them, against the same by brute force."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, pairwise

import numpy as np
import pytest

from tests.plan.workloads import MACHINE, SPEC
from umbel.config import EngineConfig
from umbel.cost.machine import Machine
from umbel.cost.shape import Shape
from umbel.ir.documents import Documents
from umbel.ir.forest import Forest
from umbel.ir.params import SamplingParams
from umbel.ir.selection import join, select_rows
from umbel.ir.workload import Workload
from umbel.plan.passes.memory import kv_room
from umbel.plan.planner import draft_of, make_plan

ONE = SamplingParams(max_tokens=1, temperature=0.0)
Row = tuple[list[int], list[list[int]], list[int]]  # what stands before documents, these, the question


def random_rows(rng: np.random.Generator, count: int) -> list[Row]:
    """Rows of few documents, some of which begin alike, behind a beginning that many share."""
    texts = [rng.integers(0, 3, rng.integers(1, 9)).tolist() for _ in range(6)]
    texts.append([*texts[0], 1])
    return [
        ([7] * int(rng.integers(0, 3)), [texts[i] for i in rng.integers(0, 7, rng.integers(0, 5))], [8, int(row % 4)])
        for row in range(count)
    ]


def workload_of(rows: list[Row], scope: list[int] | None = None) -> Workload:
    """The rows as a workload."""
    prompts, spans = [], []
    for head, documents, question in rows:
        ids, found = list(head), []
        for document in documents:
            found.append((len(ids), len(ids) + len(document)))
            ids += document
        prompts.append(ids + question)
        spans.append(found)
    load = Workload.of(prompts, ONE, scope=scope)
    documents = Documents.of(spans, load.offsets, load.tokens)
    return Workload(load.tokens, load.offsets, load.params, load.keys, load.draw_keys, load.scope, documents)


def planned(load: Workload, prefix: str = "every-fork") -> tuple[Forest, int]:
    """The forest of a plan, and the prompt tokens that it computes."""
    config = EngineConfig("tiny", technique="turbo-rag", allow_lossy=True, prefix=prefix, skip=("dedupe",))
    plan = make_plan(load, SPEC, config, MACHINE)
    return plan.forest, plan.estimates.computed_prompt_tokens


@pytest.mark.parametrize("prefix", ["every-fork", "forest", "none"])
def test_each_document_is_a_run_of_its_own(prefix: str) -> None:
    for seed in range(8):
        rows = random_rows(np.random.default_rng(seed), 20)
        load = workload_of(rows)
        forest, _ = planned(load, prefix)
        for row, leaf in enumerate(forest.leaf.tolist()):
            path = [leaf]
            while forest.parent[path[0]] >= 0:
                path.insert(0, int(forest.parent[path[0]]))
            runs = [load.prompt(int(forest.source[n]))[forest.start[n] : forest.end[n]].tolist() for n in path]
            assert list(chain(*runs)) == load.prompt(row).tolist()
            assert all(
                path[i + 1] > path[i] < forest.subtree_end[path[i]] >= path[i + 1] + 1 for i in range(len(path) - 1)
            )
            edges = {0, *np.cumsum([len(run) for run in runs]).tolist()}
            head, documents, _ = rows[row]
            ends = np.cumsum([len(head), *(len(document) for document in documents)]).tolist()
            assert edges >= set(ends if documents else [])
            inside = [set(range(a + 1, b)) for a, b in pairwise(ends)]
            assert not any(edges & some for some in inside)


def test_tokens_are_counted_as_by_hand() -> None:
    """Each token that stands in no document once for all that stands before it, each document once; adapters share
    nothing."""
    for seed in range(8):
        rng = np.random.default_rng(seed)
        rows = random_rows(rng, 20)
        for scope in (None, rng.integers(0, 2, 20).tolist()):
            paths, apart = set(), set()
            for (head, documents, question), mine in zip(rows, scope or [0] * 20, strict=True):
                items = [*head, *map(tuple, documents), *question]
                paths |= {(mine, *items[: end + 1]) for end in range(len(items))}
                apart |= {(mine, *document) for document in documents}
            tokens = sum(not isinstance(path[-1], tuple) for path in paths)
            assert planned(workload_of(rows, scope))[1] == tokens + sum(len(document) - 1 for document in apart)


def test_rows_that_are_picked_or_joined_keep_their_documents() -> None:
    rows = random_rows(np.random.default_rng(3), 12)
    load, some = workload_of(rows), np.array([7, 2, 9])
    picked = select_rows(load, some)
    assert _spelt(picked) == _spelt(workload_of([rows[i] for i in some.tolist()]))
    assert _spelt(join([workload_of(rows[:5]), workload_of([([1], [], [2])]), workload_of(rows[5:])])) == _spelt(
        workload_of([*rows[:5], ([1], [], [2]), *rows[5:]])
    )


def _spelt(load: Workload) -> list[list[int]]:
    """The tokens of all documents, and which of them are equal."""
    assert load.documents is not None
    begin, end, number = (getattr(load.documents, name).tolist() for name in ("begin", "end", "number"))
    texts = [load.tokens[a:b].tolist() for a, b in zip(begin, end, strict=True)]
    assert len({tuple(text) for text in texts}) == len(set(number))
    return [begin, *texts]


def test_the_pool_leaves_room_for_documents_that_are_kept() -> None:
    """Distinct ones, or as many tokens as may be kept; in a machine whose memory binds."""
    rng = np.random.default_rng(1)
    texts = [rng.integers(0, 90, 400).tolist() for _ in range(8)]
    load = workload_of([([7], [texts[i], texts[i - 1]], [8, i]) for i in range(8)])
    tight = replace(MACHINE, memory_bytes=Shape.of(SPEC, "float32").weight_bytes + 9_000 * kv_bytes())
    room = [tokens_of(load, tight, asked) for asked in ((), ("turbo-rag",), ("turbo-rag:kept=1000",))]
    share = MACHINE.kv_fraction
    assert room[0] - room[1] == pytest.approx(8 * 400 * share, abs=16)
    assert room[0] - room[2] == pytest.approx(1000 * share, abs=16)


def kv_bytes() -> int:
    """Bytes of a token's keys and values."""
    return Shape.of(SPEC, "float32").kv_bytes


def tokens_of(load: Workload, machine: Machine, technique: tuple[str, ...]) -> int:
    """The room that a plan finds for KV, whatever the job could use."""
    config = EngineConfig("tiny", technique=technique, allow_lossy=True, dtype="float32")
    draft = draft_of(load, SPEC, config, machine, loaded=False, known=None, asked_dtype=None)
    return kv_room(draft)
