"""Groups and kept forks against every possible choice on small forests, and on shapes that break slow methods."""

from __future__ import annotations

import dataclasses
import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.parameters import by_night
from tests.plan.workloads import MACHINE, SPEC
from tests.sched.drive import Job, drive, expected
from umbel.config import EngineConfig
from umbel.cost.roofline import Price
from umbel.cost.shape import Shape
from umbel.ir.forest import Forest
from umbel.ir.params import SamplingParams
from umbel.ir.workload import Workload
from umbel.plan.draft import PlanDraft
from umbel.plan.forest import rules as grouping
from umbel.plan.forest import solver
from umbel.plan.forest.price import Costs, price_runs
from umbel.plan.forest.regroup import Grouping, regroup
from umbel.plan.forest.rules import best_groups, every_fork, forks, paper_groups, paying_forks
from umbel.plan.passes.prefix import build_forest, share_prefixes

PROMPTS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=12)
MODES = ("forest", "every-fork", "one-level", "paper", "none")


def workload_of(prompts: list[list[int]]) -> Workload:
    return Workload.of(prompts, SamplingParams(temperature=0.0, max_tokens=8))


def draft_of(prompts: list[list[int]], mode: str = "forest", page_size: int = 16) -> PlanDraft:
    config = EngineConfig("tiny", prefix=mode, page_size=page_size)
    price = Price(Shape.of(SPEC, "float32"), MACHINE, "float32", SPEC.n_layers)
    return PlanDraft.of(workload_of(prompts), SPEC, config, price)


def random_prompts(seed: int) -> list[list[int]]:
    """A few prompts over few tokens, grown from each other so that they share at several levels."""
    draw = random.Random(seed)
    prompts = [[draw.randrange(3) for _ in range(draw.randint(1, 12))]]
    for _ in range(draw.randint(1, 9)):
        old = draw.choice(prompts)
        prompts.append(old[: draw.randint(0, len(old))] + [draw.randrange(4) for _ in range(draw.randint(1, 8))])
    return prompts


# -- the oracle: prompts and prefixes as tuples, every set of prefixes tried -------------------------------------------


def fork_prefixes(prompts: set[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Where prompts part: longest common prefixes of any two, prompts that others continue included."""
    found = set()
    for a, b in itertools.combinations(sorted(prompts), 2):
        n = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
        found.add(a[:n])
    return sorted(found - {()}, key=len)


def one_level_saving(prompts: list[list[int]], page: int, own: bool) -> int:
    """Most tokens that any set of groups saves: each distinct prompt joins the longest open one that it has."""
    distinct = {tuple(p) for p in prompts}
    groups = []
    for prefix in fork_prefixes(distinct):
        room = len(prefix) - 1 if own and prefix in distinct else len(prefix)
        groups.append((prefix, room // page * page))
    groups = [(prefix, depth) for prefix, depth in groups if depth]
    best = 0
    for n in range(len(groups) + 1):
        for chosen in itertools.combinations(groups, n):
            earned = -sum(depth for _, depth in chosen)
            for prompt in distinct:
                earned += max((depth for prefix, depth in chosen if prompt[: len(prefix)] == prefix), default=0)
            best = max(best, earned)
    return best


def saved(prompts: list[list[int]], forest: Forest) -> int:
    return sum(len(p) for p in {tuple(p) for p in prompts}) - forest.n_tokens


@pytest.mark.parametrize("block", range(8))
def test_one_level_is_the_optimum_and_the_paper_never_better(block: int) -> None:
    below = 0
    for seed in range(block * 80, block * 80 + 80):
        prompts = random_prompts(seed)
        forest = build_forest(workload_of(prompts))
        page, own = (1, 2, 3)[seed % 3], seed % 2 == 0
        best = regroup(forest, best_groups(forest, page, own_token=own))
        paper = regroup(forest, paper_groups(forest, page, own_token=own))
        assert saved(prompts, best) == one_level_saving(prompts, page, own), seed
        assert saved(prompts, paper) <= saved(prompts, best), seed
        below += saved(prompts, paper) < saved(prompts, best)
    assert below, "the published rule is not always best, or this test compares the same thing twice"


def test_the_worked_example_where_forks_pay_only_together() -> None:
    """Ten shared tokens, two grandchildren of eight with two prompts each: each fork alone loses 2, both win 6."""
    head, a, b = list(range(10)), list(range(20, 28)), list(range(40, 48))
    prompts = [[*head, *part, last] for part in (a, b) for last in (60, 61)]
    forest = build_forest(workload_of(prompts))
    paper = regroup(forest, paper_groups(forest))
    best = regroup(forest, best_groups(forest))
    assert saved(prompts, paper) == 30  # one group of ten tokens, four prompts
    assert saved(prompts, best) == 36  # two groups of eighteen, two prompts each
    assert best.end[best.parent < 0].tolist() == [18, 18]


def naive_paper(prompts: list[list[int]]) -> set[tuple[int, ...]]:
    """The published rule as a recursion over a trie of tuples; returns the groups' prefixes."""
    distinct = {tuple(p) for p in prompts}
    inner = fork_prefixes(distinct)

    def parts_of(prefix: tuple[int, ...]) -> tuple[list[tuple[int, ...]], int]:
        """Forks next below a prefix, and how many prompts part from it alone."""
        below = [f for f in inner if f[: len(prefix)] == prefix and f != prefix]
        nearest = [f for f in below if not any(g != f and f[: len(g)] == g for g in below)]
        inside = [p for p in distinct if p[: len(prefix)] == prefix]
        return nearest, sum(1 for p in inside if not any(p[: len(f)] == f for f in nearest))

    def solve(prefix: tuple[int, ...]) -> tuple[list[tuple[tuple[int, ...], int]], int]:
        """Candidates (prefix, prompts) that are children of `prefix` when its subtree is done, and lone prompts."""
        children, alone = parts_of(prefix)
        done: list[tuple[tuple[int, ...], int]] = []
        for child in children:
            grandchildren, own = solve(child)
            length, left = len(child) - len(prefix), len(grandchildren) + own
            stay = []
            for g, width in grandchildren:
                if left == 1 or (width - 1) * (len(g) - len(child)) > length:
                    done.append((g, width))
                    left = left - 1 if left > 1 else 0
                else:
                    stay.append((g, width))
            if left == 1 and stay:
                done += stay
            elif left == 1 and own:
                alone += 1
            elif left > 1:
                done.append((child, own + sum(width for _, width in stay)))
        return done, alone

    return {prefix for prefix, _ in solve(())[0]}


@pytest.mark.parametrize("block", range(2))
def test_the_published_rule_against_its_recursion(block: int) -> None:
    for seed in range(block * 100, block * 100 + 100):
        prompts = random_prompts(seed)
        workload = workload_of(prompts)
        forest = build_forest(workload)
        opened = np.flatnonzero(paper_groups(forest).opened).tolist()
        found = {tuple(workload.prompt(int(forest.source[n]))[: forest.end[n]].tolist()) for n in opened}
        assert found == naive_paper(prompts), seed


# -- forks that pay ----------------------------------------------------------------------------------------------------


def cheapest(forest: Forest, costs: Costs) -> float:
    """The least that any set of kept forks costs, by walking each prompt's path."""
    inner = np.flatnonzero(forks(forest)).tolist()
    least = np.inf
    for n in range(len(inner) + 1):
        for kept in itertools.combinations(inner, n):
            least = min(least, cost_of(forest, costs, set(kept)))
    return least


def cost_of(forest: Forest, costs: Costs, kept: set[int]) -> float:
    def begin(node: int) -> int:
        node = int(forest.parent[node])
        while node >= 0 and node not in kept:
            node = int(forest.parent[node])
        return int(forest.end[node]) if node >= 0 else 0

    total = 0.0
    for node in range(forest.n_nodes):
        if node in kept:
            total += costs.token[node] * (forest.end[node] - begin(node)) + costs.upkeep[node]
        elif (forest.leaf == node).any():
            total += costs.tail_token[node] * (forest.end[node] - begin(node)) + costs.tail_upkeep[node]
    return total


def random_costs(forest: Forest, seed: int) -> Costs:
    """Costs as price_runs promises them: lives of parts together as long as the whole's, tails no costlier."""
    draw = np.random.default_rng(seed)
    n = forest.n_nodes
    life, tail = np.zeros(n), draw.random(n)
    for node in range(n - 1, -1, -1):
        parts = life[np.flatnonzero(forest.parent == node)]
        parts = np.append(parts, tail[node] if (forest.leaf == node).any() else 0.0)
        life[node] = draw.uniform(parts.max(), parts.sum())
    read, step = draw.random() * 2, draw.random() * 20
    once = draw.random() * 3
    return Costs(1 + read * life, once + step * life, 1 + read * tail, np.minimum(once, once + step * tail))


@pytest.mark.parametrize("block", range(6))
def test_kept_forks_cost_least_of_all(block: int) -> None:
    some_folded = some_kept = 0
    for seed in range(block * 100, block * 100 + 100):
        forest = build_forest(workload_of(random_prompts(seed)))
        costs = random_costs(forest, seed)
        chosen = paying_forks(forest, costs)
        _, seconds = costs.total(forest, chosen)
        assert seconds == pytest.approx(cost_of(forest, costs, set(np.flatnonzero(chosen.opened).tolist())))
        assert seconds == pytest.approx(cheapest(forest, costs), rel=1e-9), seed
        some_folded += int((forks(forest) & ~chosen.opened).sum())
        some_kept += int(chosen.opened.sum())
    assert some_folded > 50 and some_kept > 50


@pytest.mark.parametrize("seed", range(60))
def test_costs_of_real_drafts_are_least_too(seed: int) -> None:
    prompts = [p * 3 for p in random_prompts(seed)]
    draft = draft_of(prompts)
    forest = build_forest(draft.workload)
    costs = price_runs(draft, forest)
    assert costs.total(forest, paying_forks(forest, costs))[1] == pytest.approx(cheapest(forest, costs))


@given(PROMPTS)
def test_prices_keep_their_promises(prompts: list[list[int]]) -> None:
    draft = draft_of(prompts)
    forest = build_forest(draft.workload)
    costs = price_runs(draft, forest)
    for node in np.flatnonzero(forks(forest)).tolist():
        parts = costs.token[forest.parent == node].sum()
        if (forest.leaf == node).any():
            parts += costs.tail_token[node]
            assert costs.upkeep[node] > costs.tail_upkeep[node]
        assert parts >= costs.token[node]


def test_what_many_share_is_never_folded() -> None:
    prompts = [[1, 2, 3, 4, i] for i in range(300)]
    grouped = share_prefixes(draft_of(prompts)).forest
    assert grouped.n_tokens == 4 + 300


def test_forks_of_a_token_or_two_are_folded() -> None:
    """Rows that only happen to begin with one same token, with long answers."""
    long = [[i // 2, *range(100 * i, 100 * i + 50)] for i in range(200)]
    draft = draft_of(long)
    params = SamplingParams(max_tokens=500)
    workload = Workload.of(long, params)
    draft = dataclasses.replace(draft, workload=workload, lengths=np.full(200, 500))
    done = share_prefixes(draft)
    assert (done.forest.rows_below == 1).all()
    assert "0 of 100 forks are kept" in done.decisions[-1].reason


# -- the forests that come out -----------------------------------------------------------------------------------------


def check_forest(workload: Workload, forest: Forest, levels: int | None) -> None:
    """Prompts are spelt by their paths; nodes are depth first; counts are true; rows are a permutation."""
    below = np.zeros(forest.n_nodes, int)
    for row in range(len(workload)):
        path, node = [], int(forest.leaf[row])
        while node >= 0:
            path.append(node)
            node = int(forest.parent[node])
        path.reverse()
        below[path] += 1
        parts = [workload.prompt(int(forest.source[n]))[forest.start[n] : forest.end[n]].tolist() for n in path]
        assert [t for part in parts for t in part] == workload.prompt(row).tolist()
        assert [forest.start[n] for n in path] == [0, *(forest.end[n] for n in path[:-1])]
        assert levels is None or len(path) <= levels
    assert below.tolist() == forest.rows_below.tolist()
    assert (forest.end > forest.start).all() and (forest.parent < np.arange(forest.n_nodes)).all()
    inside = np.arange(forest.n_nodes)
    for node in range(forest.n_nodes):
        under = [n for n in inside if is_above(forest, node, int(n))]
        assert under == list(range(node, int(forest.subtree_end[node])))
    assert sorted(forest.order.tolist()) == list(range(len(workload)))
    assert (np.diff(forest.leaf[forest.order]) >= 0).all()


def is_above(forest: Forest, node: int, other: int) -> bool:
    while other > node:
        other = int(forest.parent[other])
    return other == node


@pytest.mark.parametrize("mode", MODES)
@given(prompts=PROMPTS, page_size=st.integers(1, 4))
def test_every_mode_spells_every_prompt(mode: str, prompts: list[list[int]], page_size: int) -> None:
    done = share_prefixes(draft_of(prompts, mode, page_size))
    check_forest(done.workload, done.forest, {"one-level": 2, "paper": 2, "none": 1}.get(mode))
    assert done.order is done.forest.order
    if mode in ("one-level", "paper"):
        groups = done.forest.subtree_end > np.arange(done.forest.n_nodes) + 1
        assert (done.forest.end[groups] % page_size == 0).all()
    if mode == "paper":
        assert not groups[done.forest.leaf].any(), "every prompt of a group keeps a token of its own"


@given(PROMPTS, st.integers(0, 2**30))
def test_any_set_of_forks_is_a_forest(prompts: list[list[int]], bits: int) -> None:
    workload = workload_of(prompts)
    full = build_forest(workload)
    opened = forks(full) & (bits >> (np.arange(full.n_nodes) % 30) & 1).astype(bool)
    check_forest(workload, regroup(full, Grouping(opened, full.end)), None)


def test_every_fork_is_the_forest_itself() -> None:
    for seed in range(20):
        full = build_forest(workload_of(random_prompts(seed)))
        same = regroup(full, every_fork(full))
        for name in Forest.__slots__:
            assert np.array_equal(getattr(full, name), getattr(same, name)), name


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(6))
def test_answers_are_the_same_in_every_mode(mode: str, seed: int) -> None:
    prompts = random_prompts(seed) + random_prompts(seed + 50)
    job = Job(prompts, [1 + i % 2 for i in range(len(prompts))], [1 + i % 5 for i in range(len(prompts))])
    job.forest = share_prefixes(draft_of(prompts, mode, page_size=2)).forest
    run = drive(job, n_pages=60, page_size=2, chunk=24)
    assert run.tokens == {(row, i): expected(job, row, i) for row, i in job.samples}


@pytest.mark.parametrize(("prompts", "shared"), [([[1, 2, 3]], 0), ([[1, 2]] * 5, 8), ([[1], [2]], 0), ([], 0)])
def test_corners(prompts: list[list[int]], shared: int) -> None:
    for mode in MODES[:4]:
        done = share_prefixes(draft_of(prompts, mode, page_size=1))
        assert sum(map(len, prompts)) - done.forest.n_tokens == shared


def test_a_prompt_that_others_continue_ends_where_they_begin() -> None:
    prompts = [[5] * 4, [5] * 4 + [1], [5] * 4 + [2]]
    forest = share_prefixes(draft_of(prompts, "one-level", page_size=4)).forest
    assert forest.leaf[0] == forest.parent[forest.leaf[1]] == forest.parent[forest.leaf[2]] == 0
    assert forest.n_tokens == 6
    assert share_prefixes(draft_of(prompts, "paper", page_size=4)).forest.n_tokens == 14  # no whole page is left
    assert share_prefixes(draft_of(prompts, "paper", page_size=2)).forest.n_tokens == 2 + 2 + 3 + 3


# -- large ones --------------------------------------------------------------------------------------------------------


def chain(n: int) -> Forest:
    """Row i is a prefix of row i + 1, one token shorter."""
    at = np.arange(n)
    return Forest(at - 1, at, at + 1, at, np.full(n, n), n - at, at, at)


def comb(n: int) -> Forest:
    """A chain of forks of two tokens where one long prompt leaves each: node 2i is the fork, 2i + 1 the prompt."""
    at = np.arange(2 * n)
    depth = at // 2
    parent = np.where(at % 2, at - 1, at - 2)
    parent[0] = -1
    start = 2 * depth + 2 * (at % 2)
    end = 2 * depth + 2 + 50 * (at % 2)
    subtree_end = np.where(at % 2, at + 1, 2 * n)
    rows = np.where(at % 2, 1, n - depth)
    return Forest(parent, start, end, depth, subtree_end, rows, np.arange(n) * 2 + 1, np.arange(n))


def star(n: int) -> Forest:
    """One shared run and `n` prompts that continue it."""
    zero, ones = np.zeros(1, np.int64), np.ones(n, np.int64)
    rows = np.arange(n)
    return Forest(
        np.concatenate([[-1], zero.repeat(n)]),
        np.concatenate([zero, 8 * ones]),
        np.concatenate([[8], 9 * ones]),
        np.concatenate([zero, rows]),
        np.concatenate([[n + 1], rows + 2]),
        np.concatenate([[n], ones]),
        rows + 1,
        rows,
    )


def even_costs(forest: Forest, upkeep: float) -> Costs:
    ones = np.ones(forest.n_nodes)
    return Costs(ones, upkeep * ones, ones, upkeep * ones * 0.5)


@pytest.mark.parametrize("make", by_night([star], [chain, comb]))
def test_a_hundred_thousand_nodes_take_few_operations(make, monkeypatch: pytest.MonkeyPatch) -> None:
    pushes = 0
    push = grouping.heappush

    def counting(heap, item) -> None:
        nonlocal pushes
        pushes += 1
        push(heap, item)

    monkeypatch.setattr(grouping, "heappush", counting)
    monkeypatch.setattr(solver, "heappush", counting)
    counts = {}
    for n in (10_000, 100_000):
        forest = make(n)
        pushes = 0
        groups = [best_groups(forest), paper_groups(forest), paying_forks(forest, even_costs(forest, 2.5))]
        for chosen in groups:
            regroup(forest, chosen)
        counts[n] = pushes
    assert counts[100_000] <= 14 * max(counts[10_000], 10)
    assert counts[100_000] < 40 * 100_000


def test_a_chain_is_cut_where_it_saves_most() -> None:
    """Against the quadratic table, on a chain too long to try all sets."""
    n = 60
    forest = chain(n)
    table = [[0] * (n + 1) for _ in range(n + 2)]  # [node][depth open above]
    for node in range(n - 1, -1, -1):
        for above in range(node + 1):
            closed = above + table[node + 1][above]
            opened = (node + 1) + table[node + 1][node + 1] - (node + 1)
            table[node][above] = max(closed, opened) if node < n - 1 else above
    best = regroup(forest, best_groups(forest))
    assert n * (n + 1) // 2 - best.n_tokens == table[0][0]
