"""Each policy alone: the order in which it takes rows, and the tokens it computes, against plain lists and sets."""

from __future__ import annotations

import random
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

import umbel.sim.case
from tests.plan.workloads import MACHINE, SPEC
from umbel.config import EngineConfig
from umbel.ir.params import SamplingParams
from umbel.ir.workload import Workload
from umbel.sched.policies.few import LongestPrefixOfFew
from umbel.sim.case import SimCase
from umbel.sim.policies.blendserve import Demand, by_density, dual_scan
from umbel.sim.policies.daft import bucket_order
from umbel.sim.policies.llm_d import hash_order
from umbel.sim.policies.named import setup
from umbel.sim.simulate import Run

PAGE = 16
CACHED = ["fcfs-lru", "random-lru", "sorted-lru", "llm-d-hash", "daft-buckets", "blendserve"]
LOOKING = {"longest-prefix": 10**9, "sglang-lpm": 12}  # the most waiting rows with which they look at the cache
Prompts = list[list[int]]


def random_prompts(seed: int, rows: int = 40) -> Prompts:
    """Prompts that branch at all lengths, some of them prefixes of others, in random order."""
    draw = random.Random(seed)
    prompts: Prompts = []
    for row in range(rows):
        base = draw.choice(prompts) if prompts and draw.random() < 0.85 else []
        kept = base[: draw.randrange(len(base) + 1)]
        prompts.append([*kept, *(draw.randrange(1, 900) for _ in range(draw.randrange(1, 60))), 900 + row])
    draw.shuffle(prompts)
    return prompts


def case_of(prompts: Prompts, kv_tokens: int, outputs: int = 1) -> SimCase:
    params = SamplingParams(temperature=0.0, max_tokens=outputs)
    config = EngineConfig("tiny", kv_tokens=kv_tokens, page_size=PAGE)
    lengths = np.array([1 + (7 * row) % outputs for row in range(len(prompts))], np.int64)
    return SimCase(Workload.of(prompts, params), SPEC, MACHINE, config, lengths)  # type: ignore[arg-type]


def one_at_a_time(case: SimCase, name: str) -> tuple[list[int], int]:
    """The rows in the order in which a policy takes them when each runs alone, and the prompt tokens computed."""
    made = setup(case, name)
    run = Run.of(case, name, replace(made, policy=replace(made.policy, max_running=1)))
    rows = [output.row for output in run.loop.run()]
    return rows, run.runner.prompt_tokens


class PlainCache:
    """A set of pages, each known by all tokens up to its end, with the time and depth of its last use: the oldest goes
    first, and of one prompt's the last."""

    def __init__(self, pages: int):
        self.pages = pages
        self.used: dict[tuple[int, ...], tuple[int, int]] = {}
        self.now = 0

    def cached(self, prompt: list[int]) -> int:
        """Tokens of the prompt that need no computing."""
        tokens = 0
        for key in whole_pages(prompt):
            if key not in self.used:
                break
            tokens = len(key)
        return tokens

    def run(self, prompt: list[int], row: int) -> int:
        """Run a row; returns the tokens computed."""
        self.now += 1
        computed = len(prompt) - self.cached(prompt)
        keys = [*whole_pages(prompt), *([(*prompt, -1 - row)] if len(prompt) % PAGE else [])]
        for depth, key in enumerate(keys):
            self.used[key] = (self.now, -depth)
        while len(self.used) > self.pages:
            del self.used[min(self.used, key=lambda key: self.used[key])]
        return computed


def whole_pages(prompt: list[int]) -> Iterator[tuple[int, ...]]:
    return (tuple(prompt[:end]) for end in range(PAGE, len(prompt) + 1, PAGE))


@pytest.fixture
def page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shared runs are given up a page at a time, as the plain cache does."""
    monkeypatch.setattr(umbel.sim.case, "PIECE", PAGE)


@pytest.mark.usefixtures("page_by_page")
@pytest.mark.parametrize("name", CACHED)
@pytest.mark.parametrize("seed", range(3))
def test_a_given_order_computes_what_a_plain_cache_computes(name: str, seed: int) -> None:
    prompts = random_prompts(seed)
    pages = max(len(prompt) for prompt in prompts) // PAGE + 6
    case = case_of(prompts, pages * PAGE)
    rows, computed = one_at_a_time(case, name)
    plain = PlainCache(pages)
    assert rows == setup(case, name).plan.order.tolist() and sorted(rows) == list(range(len(prompts)))
    assert computed == sum(plain.run(prompts[row], row) for row in rows)
    assert computed > len({tuple(p[:end]) for p in prompts for end in range(1, len(p) + 1)})  # the cache is too small


@pytest.mark.usefixtures("page_by_page")
@pytest.mark.parametrize("name", LOOKING)
@pytest.mark.parametrize("seed", range(3))
def test_the_longest_cached_prefix_is_taken_next(name: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row by row, with the cache of the oracle; SGLang's rule holds only while few wait, otherwise the order."""
    monkeypatch.setattr(LongestPrefixOfFew, "few", LOOKING[name])
    prompts = random_prompts(seed)
    pages = max(len(prompt) for prompt in prompts) // PAGE + 12
    rows, computed = one_at_a_time(case_of(prompts, pages * PAGE), name)
    plain, waiting, expected, tokens = PlainCache(pages), list(range(len(prompts))), [], 0
    while waiting:
        looks = len(waiting) <= LOOKING[name]
        row = min(waiting, key=lambda r: (-plain.cached(prompts[r]) if looks else 0, r))
        waiting.remove(row)
        tokens += plain.run(prompts[row], row)
        expected.append(row)
    assert (rows, computed) == (expected, tokens)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("buffer", "batch"), [(10**9, 7), (12, 5), (3, 1), (1, 64)])
def test_buckets_come_out_as_from_a_plain_buffer(seed: int, buffer: int, batch: int) -> None:
    prompts = random_prompts(seed)
    case = case_of(prompts, 4096)
    found = bucket_order(case.workload, case.sorted_rows, buffer, batch).tolist()
    assert found == list(plain_buckets(prompts, buffer, batch))


def plain_buckets(prompts: Prompts, buffer: int, batch: int) -> Iterator[int]:
    """The rows of the largest bucket until the buffer is small enough; bucket by bucket, from the definition."""
    held: list[int] = []
    for begin in range(0, len(prompts), batch):
        held += range(begin, min(begin + batch, len(prompts)))
        over = begin + batch >= len(prompts)
        for most in [buffer] + [0] * over:
            yield from plain_pops(prompts, held, most)


def plain_pops(prompts: Prompts, held: list[int], most: int) -> Iterator[int]:
    cut: Prompts = []
    for row in sorted(held, key=prompts.__getitem__):
        if cut and alike(prompts[cut[-1][-1]], prompts[row]):
            cut[-1].append(row)
        else:
            cut.append([row])
    while len(held) > most:
        largest = max(range(len(cut)), key=lambda i: (len(cut[i]), i))
        for row in cut.pop(largest):
            held.remove(row)
            yield row


def alike(a: list[int], b: list[int]) -> bool:
    common = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return common / len(a) >= 0.33 or common / len(b) >= 0.33


@pytest.mark.parametrize("seed", range(4))
def test_rows_are_sorted_by_a_hash_of_their_system_prompt(seed: int) -> None:
    prompts = random_prompts(seed)
    case = case_of(prompts, 4096)

    def system(row: int) -> list[int]:
        """What a row has in common with all that begin with its first token."""
        alike = [p for p in prompts if p[0] == prompts[row][0]]
        shared = range(min(map(len, alike)))
        end = next((i for i in shared if len({p[i] for p in alike}) > 1), len(shared))
        return prompts[row][:end] if len(alike) > 1 else []

    def key(row: int) -> tuple[int, int]:
        start = system(row)
        return zlib.crc32(np.array(start, np.int32).tobytes()) if start else 2**32 - 1, row

    assert hash_order(case.workload, case.forest).tolist() == sorted(range(len(prompts)), key=key)


@pytest.mark.parametrize("seed", range(4))
def test_two_scanners_keep_the_density_of_the_whole(seed: int) -> None:
    """Demands, densities and the scan from their definitions, row by row and token by token."""
    prompts = random_prompts(seed)
    case = case_of(prompts, 4096, outputs=30)
    demand, forest = Demand.of(case), case.forest
    shape, flops, rate = case.price.shape, 0.6 * MACHINE.matmul_flops, 0.6 * MACHINE.memory_rate
    distinct = {tuple(p[:end]) for p in prompts for end in range(1, len(p) + 1)}
    run = sum(shape.token_flops + len(prefix) * shape.pair_flops for prefix in distinct) / flops
    seen = [sum(len(p) + i + 1 for i in range(int(case.lengths[r]))) for r, p in enumerate(prompts)]
    each = shape.token_flops + shape.head_flops
    answer = [(int(case.lengths[r]) * each + seen[r] * shape.pair_flops) / flops for r in range(len(prompts))]
    assert demand.run.sum() == pytest.approx(run)
    assert demand.answer == pytest.approx(answer)
    assert demand.reading == pytest.approx([tokens * shape.kv_bytes / rate for tokens in seen])
    assert demand.bound == pytest.approx(max(run + sum(answer), float(demand.reading.sum())))

    rows = by_density(forest, demand).tolist()
    assert sorted(rows) == list(range(len(prompts)))
    nodes, n_rows = range(forest.n_nodes), range(len(prompts))
    below = [[r for r in n_rows if is_below(forest.leaf[r], v, forest.parent)] for v in nodes]
    density = [
        (demand.run[v : forest.subtree_end[v]].sum() + demand.answer[below[v]].sum()) / demand.reading[below[v]].sum()
        for v in nodes
    ]
    for node in range(-1, forest.n_nodes):
        children = [v for v in nodes if forest.parent[v] == node]
        children.sort(key=lambda v: min(rows.index(r) for r in below[v]))
        assert [density[v] for v in children] == sorted((density[v] for v in children), reverse=True)
        for v in children:  # a subtree stands together
            places = [rows.index(r) for r in below[v]]
            assert max(places) - min(places) == len(places) - 1

    sharers = Counter(tuple(p[:end]) for p in prompts for end in range(1, len(p) + 1))
    compute = answer.copy()
    for prefix, rows_with in sharers.items():
        for r in n_rows:
            if tuple(prompts[r][: len(prefix)]) == prefix:
                compute[r] += (shape.token_flops + len(prefix) * shape.pair_flops) / flops / rows_with
    started: list[int] = []
    for row in dual_scan(forest, demand).tolist():
        left = [r for r in rows if r not in started]
        share = [sum(costs[r] for r in started) / sum(costs) for costs in (compute, demand.reading.tolist())]
        assert row == (left[0] if share[0] <= share[1] + 1e-12 else left[-1])
        started.append(row)
    assert len(started) == len(prompts)


def is_below(leaf: np.int64, node: int, parent: np.ndarray) -> bool:
    while leaf >= 0 and leaf != node:
        leaf = parent[leaf]
    return bool(leaf == node)


def test_the_scanners_start_where_the_balance_is_missing() -> None:
    """Long prompts with a word out and short ones with long answers, half and half: they are taken in turn."""
    prompts = [[row + 1, *range(100, 600)] if row < 10 else [row + 1, 3] for row in range(20)]
    config, workload = EngineConfig("tiny", kv_tokens=8192), Workload.of(prompts, SamplingParams(max_tokens=400))  # type: ignore[arg-type]
    case = SimCase(workload, SPEC, MACHINE, config, np.array([1] * 10 + [400] * 10))
    order = setup(case, "blendserve").plan.order.tolist()
    assert all(6 < sum(row < 10 for row in order[:end]) * 20 / end < 14 for end in (10, 14, 18, 20))


def test_random_rows_are_a_permutation_of_the_seed() -> None:
    case = case_of(random_prompts(0), 4096)
    order = setup(case, "random-lru").plan.order.tolist()
    assert sorted(order) == list(range(40)) != order and order == setup(case, "random-lru").plan.order.tolist()
