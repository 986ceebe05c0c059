"""Simulated runs held to the loop's own counters, to plain sums over their steps, and to what theory says they save."""

from __future__ import annotations

import dataclasses
import random
from collections import OrderedDict
from functools import cache

import numpy as np
import pytest

from tests.plan.workloads import MACHINE, SPEC, groups, run
from umbel.config import EngineConfig
from umbel.errors import UsageError
from umbel.ir.params import SamplingParams
from umbel.ir.request import Output
from umbel.ir.step import Step
from umbel.ir.workload import Workload
from umbel.runner.base import Wait
from umbel.sim.case import SimCase
from umbel.sim.policies.batchllm import smallest_prefill_first
from umbel.sim.policies.named import ABLATIONS, setup
from umbel.sim.simulate import Run, simulate
from umbel.sim.synthetic import Synthetic

# Policies that differ from these in the order of rows alone are in test_policies.py.
RULES = ("fcfs-lru", "sglang-lpm", "longest-prefix", "batchllm", "umbel")
NAMES = [*RULES, *ABLATIONS]
EACH = pytest.mark.parametrize("name", NAMES)


def case_of(workload: Workload, kv_tokens: int, lengths: list[int] | None = None) -> SimCase:
    known = None if lengths is None else np.array(lengths, np.int64)
    return SimCase(workload, SPEC, MACHINE, EngineConfig("tiny", kv_tokens=kv_tokens), known)


def nested() -> Workload:
    """Shared runs of odd lengths at three levels, prompts that end inside others, and two equal ones; shuffled."""
    head = run(3, 75)
    prompts = [[*head, a, *run(a, 50), b, *run(b, 21), c, 9] for a in range(3) for b in range(3) for c in range(4)]
    prompts += [head, [*head, 0, *run(0, 20)], prompts[0], *groups(3, 6, 64, 20)]
    random.Random(1).shuffle(prompts)
    return Workload.of(prompts, SamplingParams(max_tokens=40))


def lengths_of(workload: Workload) -> list[int]:
    draw = random.Random(2)
    return [draw.randrange(1, 41) for _ in range(len(workload))]


def tight(kv_tokens: int = 1024) -> SimCase:
    """A case in which the pool is short, so that caches lose blocks and rows their places."""
    workload = nested()
    return case_of(workload, kv_tokens, lengths_of(workload))


@cache
def shared() -> SimCase:
    """The same case for tests that only look at it: its plan and forests are worked out once."""
    return tight()


@EACH
def test_every_row_is_answered_once_at_its_length(name: str) -> None:
    case = shared()
    outputs: list[Output] = list(Run.of(case, name).loop.run())
    assert sorted(o.row for o in outputs) == list(range(len(case.workload)))
    assert all(o.error is None for o in outputs)
    same_as = setup(case, name).plan.same_as
    for output in outputs:
        assert len(output.outputs[0].token_ids) == case.lengths[same_as[output.row]]


@EACH
def test_the_runner_counts_what_the_loop_counts(name: str) -> None:
    run = Run.of(shared(), name)
    outcome = run.outcome()
    stats, runner = run.loop.stats(), run.runner
    answered = stats.output_tokens - len(set(run.setup.plan.same_as.tolist()))
    fed = stats.computed_prompt_tokens + stats.recomputed_tokens + answered
    assert runner.prompt_tokens + runner.again + runner.answer_tokens == fed == runner.load.tokens.sum()
    assert outcome.computed_prompt_tokens == runner.prompt_tokens
    assert runner.prompt_tokens >= stats.computed_prompt_tokens == run.setup.plan.forest.n_tokens
    assert len(runner.load.steps) == stats.steps
    assert runner.load.kv_read.sum() == stats.kv_tokens_read
    assert runner.load.samples.sum() == stats.output_tokens


def test_the_pool_of_these_tests_is_short() -> None:
    """Else they would say nothing of what is evicted, preempted and computed again."""
    found = {name: simulate(shared(), name) for name in (*NAMES, "sorted-lru")}
    assert all(found[name].recomputed_tokens > 200 for name in ("fcfs-lru", "sorted-lru", "longest-prefix"))
    assert all(found[name].preemptions for name in ("fcfs-lru", "batchllm", "umbel-no-memory"))
    assert found["umbel"].evicted_rows <= found["umbel-no-memory"].evicted_rows


@EACH
def test_a_run_gives_the_same_figures_again(name: str) -> None:
    assert simulate(tight(), name) == simulate(shared(), name)


@pytest.mark.parametrize("name", ["fcfs-lru", "umbel"])
def test_virtual_time_is_the_sum_over_the_steps(name: str) -> None:
    """Every step's work is counted again, node by node and row by row, and priced by the roofline written out."""
    run = Run.of(shared(), name)
    steps: list[Step] = []
    inner = run.runner.start

    def recording(step: Step) -> Wait:
        steps.append(step)
        return inner(step)

    run.runner.start = recording  # type: ignore[method-assign]
    outcome = run.outcome()
    assert outcome.seconds == pytest.approx(sum(seconds_of(run, step, shared=name == "umbel") for step in steps))
    assert outcome.rows_per_second == pytest.approx(outcome.rows / outcome.seconds)


def seconds_of(run: Run, step: Step, *, shared: bool) -> float:
    shape, machine = run.runner.price.shape, run.runner.price.machine
    n = len(step.start)
    owner = [i for i in range(n) for _ in range(step.row_begin[i], step.row_end[i])]
    with_rows = set(owner)
    above = {i: {p for p in parents(step, i)} for i in range(n)}
    ends = [i for i in with_rows if not any(i in above[j] for j in with_rows)]
    read = sum(int(step.end[i] - step.start[i]) for i in range(n)) if shared else sum(int(step.end[i]) for i in ends)
    pairs = sum(int(p) + 1 for p in step.positions)
    samples, tokens = len(step.sampling), len(step.tokens)
    flops = tokens * shape.token_flops + pairs * shape.pair_flops + samples * shape.head_flops
    n_bytes = shape.layer_bytes + (shape.head_bytes if samples else 0) + (read + tokens) * shape.kv_bytes
    overhead = machine.step_overhead + machine.layer_overhead * SPEC.n_layers
    return max(flops / (0.6 * machine.matmul_flops), n_bytes / (0.6 * machine.memory_rate)) + overhead


def parents(step: Step, node: int) -> list[int]:
    found = []
    while (node := int(step.parent[node])) >= 0:
        found.append(node)
    return found


def test_with_room_for_all_ours_computes_every_distinct_token_once() -> None:
    case = tight(kv_tokens=100_000)
    distinct = {tuple(case.workload.prompt(r)[:end].tolist()) for r in range(len(case.workload)) for end in
                range(1, len(case.workload.prompt(r)) + 1)}  # fmt: skip
    outcome = simulate(case, "umbel")
    assert outcome.computed_prompt_tokens == len(distinct)
    assert outcome.recomputed_tokens == 0
    assert outcome.saving == pytest.approx(1 - len(distinct) / len(case.workload.tokens))


@pytest.mark.parametrize("pool", [6_000, 12_000])
@pytest.mark.parametrize(("prefix", "degree"), [(320, 4), (320, 16), (960, 32)])
def test_a_shuffled_lru_cache_saves_what_a_plain_one_saves(prefix: int, degree: int, pool: int) -> None:
    """Within a point of a list of prefixes and remainders that drops what was used least recently, row after row."""
    workload = Synthetic(prefix, 16, degree, rows=640, output=1, seed=3).workload()
    saving = simulate(case_of(workload, pool), "fcfs-lru").saving
    assert saving == pytest.approx(plain_lru(workload, prefix, 16, pool), abs=0.01)


def plain_lru(workload: Workload, prefix: int, remainder: int, pool: int) -> float:
    cache: OrderedDict[int, int] = OrderedDict()
    hits = 0
    for row in range(len(workload)):
        group = int(workload.prompt(row)[0])
        hits += prefix if group in cache else 0
        cache[-1 - row] = remainder
        cache[group] = prefix
        cache.move_to_end(group)
        while sum(cache.values()) > pool:
            cache.popitem(last=False)
    return hits / len(workload.tokens)


@pytest.mark.parametrize(("prefix", "degree"), [(320, 4), (320, 16), (960, 16)])
def test_a_small_lru_cache_saves_what_the_one_line_model_says(prefix: int, degree: int) -> None:
    """(resident prefixes / all prefixes) * p / (p + d), within 4 points while less than half of them are resident."""
    rows, remainder, pool = 640, 16, 6_000
    workload = Synthetic(prefix, remainder, degree, rows, output=1, seed=3).workload()
    model = pool / prefix / (rows / degree) * prefix / (prefix + remainder)
    assert simulate(case_of(workload, pool), "fcfs-lru").saving == pytest.approx(model, abs=0.04)


@pytest.mark.parametrize("seed", range(6))
def test_one_level_never_computes_less_than_the_forest(seed: int) -> None:
    draw = random.Random(seed)
    prompts: list[list[int]] = []
    for _ in range(40):
        base = draw.choice(prompts) if prompts else run(0, 70)
        prompts.append([*base[: draw.randrange(1, len(base) + 1)], draw.randrange(50), *run(draw.randrange(4), 30)])
    case = case_of(Workload.of(prompts, SamplingParams(max_tokens=4)), 50_000)
    ours, theirs = simulate(case, "umbel"), simulate(case, "batchllm")
    assert theirs.computed_prompt_tokens >= ours.computed_prompt_tokens


def test_groups_come_by_rising_prefill() -> None:
    case = case_of(nested(), 4096)
    made = setup(case, "batchllm").plan
    forest = made.forest
    root = {row: tree_of(forest.parent, int(forest.leaf[row])) for row in made.order.tolist()}
    size = (forest.end - forest.start).tolist()
    total = {r: sum(size[v] for v in range(forest.n_nodes) if tree_of(forest.parent, v) == r) for r in root.values()}
    sequence = [total[root[row]] for row in made.order.tolist()]
    assert sequence == sorted(sequence)
    assert smallest_prefill_first(forest).tolist() == made.order.tolist()


def tree_of(parent: np.ndarray, node: int) -> int:
    while parent[node] >= 0:
        node = int(parent[node])
    return node


def test_switched_off_parts_are_off() -> None:
    case = shared()
    ours = setup(case, "umbel")
    assert (setup(case, "umbel-no-prefix").plan.forest.rows_below <= 1).all()
    order = setup(case, "umbel-no-order").plan.order
    assert order.tolist() == sorted(ours.plan.order.tolist())
    packed = setup(case, "umbel-no-pack")
    assert (packed.policy.max_running, packed.plan.chunk) == (256, 2048)
    assert setup(case, "umbel-no-memory").policy == dataclasses.replace(ours.policy, admission="aggressive")


def test_sorted_rows_are_in_lexicographic_order() -> None:
    case = shared()
    prompts = [case.workload.prompt(row).tolist() for row in case.sorted_rows.tolist()]
    assert prompts == sorted(prompts)


def test_rows_that_never_fit_are_counted_apart() -> None:
    workload = Workload.of([run(1, 600), run(2, 40)], SamplingParams(max_tokens=4))
    outcome = simulate(case_of(workload, 512), "fcfs-lru")
    assert (outcome.rows, outcome.failed_rows, outcome.prompt_tokens) == (2, 1, 40)


def test_another_name_is_refused() -> None:
    with pytest.raises(UsageError, match="did you mean 'umbel'"):
        setup(shared(), "umbell")


@pytest.mark.parametrize("kv_tokens", [6_000, 60_000])
@pytest.mark.parametrize(("prefix", "remainder", "degree", "output"), [(400, 40, 16, 20), (100, 100, 4, 60)])
def test_plans_foresee_what_is_simulated(prefix: int, remainder: int, degree: int, output: int, kv_tokens: int) -> None:
    """Where answers are as long as assumed, the plan's walk and the loop on the same price list agree within 5 %.

    Memory is fast here, as the two differ in how often attention reads what: the plan counts our kernel's grid cells.
    """
    machine, config = dataclasses.replace(MACHINE, memory_rate=1e15), EngineConfig("tiny", kv_tokens=kv_tokens)
    case = SimCase(Synthetic(prefix, remainder, degree, 320, output).workload(), SPEC, machine, config)
    outcome, expected = simulate(case, "umbel"), case.plan.estimates
    assert outcome.steps == pytest.approx(expected.steps, rel=0.03)
    assert outcome.seconds == pytest.approx(expected.seconds[1], rel=0.05)
    assert outcome.kv_peak_tokens == pytest.approx(expected.kv_peak_tokens, rel=0.05)
    assert outcome.computed_prompt_tokens == expected.computed_prompt_tokens
