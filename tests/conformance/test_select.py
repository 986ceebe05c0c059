"""Every selector of the catalogue: a full budget is dense attention to the bit, and what a row reads depends on its
path alone, wherever chunks end, whatever runs beside it, and whatever stepped back."""

from __future__ import annotations

import random
from collections.abc import Mapping

import numpy as np
import pytest
import torch

from tests.attention.stage import attend, poisoned_store, spec_of, steps_of
from tests.sched.drive import VOCAB, Job
from umbel import registry
from umbel.attention.base import AttentionBackend
from umbel.attention.select.selected import SelectedAttention
from umbel.config import EngineConfig
from umbel.errors import UsageError
from umbel.ir.spec import ModelSpec
from umbel.ir.step import Step
from umbel.kv.slots import path_slots, row_nodes, write_slots
from umbel.kv.store import KVStore

ROWS = {row.name: row for row in registry.rows("select")}
SHARE = {name: row.settings[0].name for name, row in ROWS.items()}  # 1 is everything
EACH = pytest.mark.parametrize("name", ROWS)
SPEC = spec_of(2, 2, 16)
Outputs = Mapping[bytes, torch.Tensor]
ANSWER = 9  # tokens


def backend_of(spec: ModelSpec, store: KVStore) -> AttentionBackend:
    """What a processor takes where something selects."""
    return registry.load("attention", "native", spec, store, torch.device("cpu"))


class Paths:
    """Queries, keys and values that follow from a token and its position, and which tokens each row has before it."""

    def __init__(self, pages: int, page_size: int):
        generator = torch.Generator().manual_seed(0)
        heads = SPEC.n_heads + 2 * SPEC.n_kv_heads
        self.of_token = torch.randn(VOCAB, heads, SPEC.head_dim, generator=generator) * 2
        self.of_position = torch.randn(4096, heads, SPEC.head_dim, generator=generator)
        self.tokens = np.zeros((pages + 1) * page_size, np.int64)
        self.scratch = pages * page_size

    def qkv(self, step: Step) -> tuple[torch.Tensor, ...]:
        """The queries, keys and values of the rows of a step."""
        found = self.of_token[torch.from_numpy(step.tokens)] + self.of_position[torch.from_numpy(step.positions)]
        return found.split((SPEC.n_heads, SPEC.n_kv_heads, SPEC.n_kv_heads), 1)

    def names(self, step: Step) -> dict[int, bytes]:
        """Some rows of prompts and all of answers, by the tokens up to them."""
        self.tokens[write_slots(step, self.scratch)] = step.tokens
        nodes, positions = row_nodes(step), step.positions
        assert step.answers is not None
        rows = np.flatnonzero(step.answers[nodes] | (positions % 41 == 0)).tolist()
        paths = {row: path_slots(step, nodes[row : row + 1], np.arange(positions[row] + 1)[None])[0] for row in rows}
        return {row: self.tokens[slots].tobytes() for row, slots in paths.items()}


def outputs(name: str, share: float, job: Job, chunk: int, spare: int = 10**6, page_size: int = 16) -> Outputs:
    """What attention gives some rows of a job, in a pool of `spare` pages more than its largest row needs, at most of
    all that it can use."""
    pages = min(job.largest_row(page_size) + spare, job.demand(page_size))
    store, paths = poisoned_store(SPEC, pages, page_size), Paths(pages, page_size)
    backend = backend_of(SPEC, store)
    if name:
        selector = ROWS[name].load()(ROWS[name].settings_of(f"{name}:{SHARE[name]}={share}"), SPEC)
        backend = SelectedAttention(backend, [selector], SPEC, store)
    found: dict[bytes, torch.Tensor] = {}
    for _, step in steps_of(job, pages, page_size, chunk):
        backend.prepare(step)
        got = attend(backend, *paths.qkv(step))
        for row, named in paths.names(step).items():
            assert named not in found or torch.equal(found[named], got[row])
            found[named] = got[row]
    return found


def long_job(others: int = 0) -> Job:
    """A prompt that is longer than two windows, and others that fork from it in the middle of a cell."""
    rng = random.Random(1)
    base = [rng.randrange(VOCAB) for _ in range(2300)]
    forks = [[*base[: 1100 + 300 * i], *(rng.randrange(VOCAB) for _ in range(150))] for i in range(others)]
    return Job([base, *forks], [1] * (1 + others), [ANSWER] * (1 + others))


def same(some: Outputs, others: Outputs) -> int:
    """How many rows are in both, which must be equal to the bit."""
    shared = some.keys() & others.keys()
    assert all(torch.equal(some[key], others[key]) for key in shared)
    return len(shared)


@EACH
def test_a_full_budget_is_dense_to_the_bit_and_a_small_one_is_not(name: str) -> None:
    dense = outputs("", 1, long_job(), 700)
    assert same(outputs(name, 1, long_job(), 700), dense) == len(dense)
    few = outputs(name, 0.2, long_job(), 700)
    assert not all(torch.equal(few[key], dense[key]) for key in dense)


@EACH
def test_nothing_else_in_a_job_changes_what_a_row_reads(name: str) -> None:
    """Chunks, pages, rows beside it that share its prompt, and a pool so small that rows step back."""
    alone = outputs(name, 0.3, long_job(), 700)
    assert same(outputs(name, 0.3, long_job(), 333), alone) == len(alone)
    beside = outputs(name, 0.3, long_job(3), 1000)
    assert same(beside, alone) == len(alone)
    assert same(outputs(name, 0.3, long_job(3), 250, spare=2), beside) == len(beside)


@EACH
def test_what_cannot_be_asked_is_refused_by_name(name: str) -> None:
    share = SHARE[name]
    for asked, why in (
        (f"{name}:{share}=0", f"{share}=0: must be above 0 and at most 1"),
        (f"{name}:{share}=1.5", f"{share}=1.5: must be above 0 and at most 1"),
        (f"{name}:{share}=many", f"{share}='many': must be a number"),
        (f"{name}:bugdet=0.5", f"'bugdet' is no setting of .*{share}"),
    ):
        with pytest.raises(UsageError, match=why):
            EngineConfig("demo", technique=(asked,), allow_lossy=True)
    with pytest.raises(UsageError, match=f"both say what {ROWS[name].rows} read"):
        EngineConfig("demo", technique=(name, f"{name}:{share}=0.5"), allow_lossy=True)
    with pytest.raises(UsageError, match="use replicas"):
        EngineConfig("demo", technique=(name,), allow_lossy=True, tensor_parallel_size=2)
