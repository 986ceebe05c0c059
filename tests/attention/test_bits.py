"""The bits of every log-probability, whatever else is in the batch.

Each answer is computed once in one plain way and then again under other chunks, pools, pages, neighbours, orders and
threads. Every chosen token and its float64 log-probability must be the same, to the last bit; no retries.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from tests.attention.stage import BACKENDS, BORDERS, CAN, CPU, NARROW, MixedSpec, poisoned_backend
from tests.parameters import few_of
from tests.sched.drive import apply
from umbel.cache.pages import PagePool
from umbel.ir.kv_shape import KVShape
from umbel.ir.layer import HeadNorm, Layer
from umbel.ir.params import SamplingParams
from umbel.ir.spec import ModelSpec
from umbel.ir.workload import Workload
from umbel.kernels.native.calls import INSTRUCTION_SETS
from umbel.models.decoder import Decoder
from umbel.models.weights import dummy_weights
from umbel.plan.passes.prefix import build_forest
from umbel.runner.base import run_step
from umbel.runner.torch_runner import TorchRunner
from umbel.sched.lot import Lot
from umbel.sched.scheduler import Scheduler

VOCAB, N_ROWS, ALL = 97, 22, 1 << 30
LOGPROBS = 200  # at least, of a case; it is compared whole more than 10 times, and all cases pass the goal of 10,000

Answers = dict[tuple[int, int], tuple[list[int], list[float]]]  # (place among the rows run, sample) -> ids, logprobs


@dataclass(frozen=True)
class Case:
    """A model and rows for it."""

    name: str
    spec: ModelSpec
    decoder: Decoder
    prompts: list[list[int]]
    params: list[SamplingParams]
    outs: list[int]
    backend: str = "torch"

    def demand(self, page_size: int) -> int:
        """Pages that all rows together hold."""
        forest = build_forest(Workload.of(self.prompts, self.params))
        tails = sum(p.n * -(-out // page_size) for p, out in zip(self.params, self.outs, strict=True))
        return int((-(-(forest.end - forest.start) // page_size)).sum()) + tails


def case_of(
    name: str,
    seed: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    windows: tuple[int | None, ...] = (None, None),
    cap: float | None = None,
) -> Case:
    scale = head_dim**-0.5
    spec = MixedSpec(
        "qwen3", VOCAB, 48, 2, heads, kv_heads, head_dim, 80, 4096, 1e-6, 1e4,
        layers=(Layer(head_norm=HeadNorm()),), tied_embeddings=True,
        shapes=tuple(KVShape(heads, kv_heads, head_dim, head_dim, scale, window, cap) for window in windows),
    )  # fmt: skip
    weights = {k: v * 14 if v.ndim > 1 else v for k, v in dummy_weights(spec, torch.float32, seed).items()}
    rng = random.Random(seed)
    bases = [[rng.randrange(VOCAB) for _ in range(300)] for _ in range(2)]
    prompts = [
        bases[i % 2][: rng.choice(BORDERS)] + [rng.randrange(VOCAB) for _ in range(rng.choice((0, 1, 2, 30)))]
        for i in range(N_ROWS)
    ]
    params = [
        SamplingParams(n=3 if i % 7 == 3 else 1, temperature=(0.0, 0.8)[i % 3 > 0], seed=i) for i in range(N_ROWS)
    ]
    params = [SamplingParams(n=p.n, temperature=p.temperature, seed=p.seed, logprobs=0) for p in params]
    return Case(name, spec, Decoder(spec, weights), prompts, params, [rng.randrange(4, 14) for _ in prompts])


CASES = {
    "grouped": lambda: case_of("grouped", 0, 6, 2, 16),
    "one head each": lambda: case_of("one head each", 1, 2, 2, 32),
    "one kv head": lambda: case_of("one kv head", 2, 8, 1, 16),
    "window": lambda: case_of("window", 3, 4, 2, 16, windows=(100, 100)),
    "caps, windows by layer": lambda: case_of("caps, windows by layer", 4, 4, 2, 16, windows=(30, None), cap=3.0),
}


# All backends that promise it in float32, and the best of the compiled ones in bfloat16 too.
PROMISING = [name for name in BACKENDS if CAN[name].reproducible == "per row"]
CHOICES = [*PROMISING, *(NARROW + name for name in INSTRUCTION_SETS[:1])]


SHORT = ("grouped", "caps, windows by layer")
EVERY = [(backend, name) for backend in CHOICES for name in CASES]
PARAMS = few_of(
    [one for one in EVERY if one[1] in SHORT],
    [(one,) for one in EVERY if one[1] not in SHORT],
)


@pytest.fixture(scope="module", params=PARAMS, ids=" ".join)
def case(request: pytest.FixtureRequest) -> Case:
    backend, name = request.param
    return replace(CASES[name](), backend=backend)


@pytest.fixture(scope="module")
def plain(case: Case) -> Answers:
    """Every row alone, its prompt in one piece, in pages of 16."""
    answers: Answers = {}
    for row in range(N_ROWS):
        alone = run(case, [row], chunk=ALL, pages=200, page_size=16)
        answers |= {(row, sample): answer for (_, sample), answer in alone.items()}
    assert sum(len(logprobs) for _, logprobs in answers.values()) >= LOGPROBS
    return answers


def run(case: Case, rows: Sequence[int], *, chunk: int, pages: int, page_size: int, force: int = 0) -> Answers:
    """Answers of some rows in the given order; `force` preempts the last sample every so many steps."""
    workload = Workload.of([case.prompts[r] for r in rows], [case.params[r] for r in rows], rows)
    outs = np.array([case.outs[r] for r in rows])
    scheduler = Scheduler(PagePool(pages, page_size), chunk)
    scheduler.add(Lot(workload, build_forest(workload), [() for _ in rows], outs))
    runner = TorchRunner(case.decoder, poisoned_backend(case.backend, case.spec, pages, page_size), CPU)
    seqs, answers, logprobs, steps = scheduler.seqs, Answers(), {}, 0
    while (step := scheduler.next()) is not None:
        result = run_step(runner, step)
        assert not result.bad.any()
        slots = apply(scheduler, result)
        values = [] if result.logprobs is None else result.logprobs.tolist()
        for slot, value in zip(slots.tolist(), values, strict=True):
            key = int(seqs.row[slot]), int(seqs.sample[slot])
            logprobs.setdefault(key, []).append(value)
            if seqs.n_out[slot] == seqs.max_out[slot]:
                answers[key] = seqs.out[slot, : seqs.n_out[slot]].tolist(), logprobs[key]
                scheduler.finish(slot)
        steps += 1
        if force and steps % force == 0:
            scheduler.books.give_way()
    assert not scheduler.failed
    return answers


def assert_same_bits(got: Answers, plain: Answers, rows: Sequence[int]) -> None:
    """Every sample of `rows` is there, with the tokens and the bits of the plain run."""
    samples = {row: [key for key in plain if key[0] == row] for row in set(rows)}
    assert len(got) == sum(len(samples[row]) for row in rows)
    for (place, sample), (ids, logprobs) in got.items():
        wanted = plain[rows[place], sample]
        assert ids == wanted[0], (rows[place], sample)
        assert [x.hex() for x in logprobs] == [x.hex() for x in wanted[1]], (rows[place], sample)


@pytest.mark.parametrize("chunk", few_of([7, 2048], [1, 2, 16, 64, 100, 128, 512]))
def test_chunk(case: Case, plain: Answers, chunk: int) -> None:
    rows = range(N_ROWS) if chunk > 2 else range(0, N_ROWS, 6)
    assert_same_bits(run(case, rows, chunk=chunk, pages=case.demand(16), page_size=16), plain, rows)


@pytest.mark.parametrize(
    ("percent", "chunk"), few_of([(10, 33), (25, 512)], [(100, 33), (25, 33), (100, 512), (10, 512)])
)
def test_pool(case: Case, plain: Answers, percent: int, chunk: int) -> None:
    pages = max(case.demand(4) * percent // 100, 125)
    assert_same_bits(run(case, range(N_ROWS), chunk=chunk, pages=pages, page_size=4), plain, range(N_ROWS))


@pytest.mark.parametrize("page_size", few_of([1, 64], [4, 16]))
def test_page_size(case: Case, plain: Answers, page_size: int) -> None:
    got = run(case, range(N_ROWS), chunk=200, pages=case.demand(page_size), page_size=page_size)
    assert_same_bits(got, plain, range(N_ROWS))


@pytest.mark.parametrize("count", few_of([2, 9], [7, 8, 16]))
def test_neighbours(case: Case, plain: Answers, count: int) -> None:
    rng = random.Random(count)
    for _ in range(3):
        rows = rng.sample(range(N_ROWS), count)
        assert_same_bits(run(case, rows, chunk=512, pages=case.demand(16), page_size=16), plain, rows)


def test_order(case: Case, plain: Answers) -> None:
    for rows in (list(range(N_ROWS))[::-1], random.Random(9).sample(range(N_ROWS), N_ROWS)):
        assert_same_bits(run(case, rows, chunk=512, pages=case.demand(16), page_size=16), plain, rows)


@pytest.mark.parametrize("every", [1, 3])
def test_preempted_at_any_moment(case: Case, plain: Answers, every: int) -> None:
    got = run(case, range(N_ROWS), chunk=64, pages=case.demand(16), page_size=16, force=every + 1)
    assert_same_bits(got, plain, range(N_ROWS))


@pytest.mark.slow
def test_two_threads(case: Case, plain: Answers) -> None:
    torch.set_num_threads(2)
    got = run(case, range(N_ROWS), chunk=512, pages=case.demand(16), page_size=16)
    assert_same_bits(got, plain, range(N_ROWS))


def test_many_resident(case: Case, plain: Answers) -> None:
    """More than 128 samples at once: each row in six copies."""
    rows = list(range(N_ROWS)) * 6
    assert_same_bits(run(case, rows, chunk=2048, pages=8 * case.demand(16), page_size=16), plain, rows)
