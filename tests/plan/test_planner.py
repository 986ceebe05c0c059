"""The passes and the walk: what they decide on workloads whose answer is known by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plan.workloads import CANONICAL, MACHINE, SPEC, groups, of, run
from umbel.config import EngineConfig
from umbel.errors import CapacityError, UsageError
from umbel.ir.params import SamplingParams
from umbel.ir.plan import Plan
from umbel.ir.workload import Workload
from umbel.plan.passes.lengths import UNBOUNDED
from umbel.plan.planner import PASSES, chosen_passes, draft_of, make_plan
from umbel.plan.walk.clock import Limits, walk
from umbel.plan.walk.pricing import run_draft, scored_tokens
from umbel.plan.walk.samples import WalkSamples


def plan_of(workload: Workload, **options: int) -> Plan:
    return make_plan(workload, SPEC, EngineConfig("tiny", **options), MACHINE)


def test_estimates_of_groups() -> None:
    e = plan_of(of(groups(4, 32, 512, 32), max_tokens=4)).estimates
    assert (e.rows, e.samples, e.prompt_tokens, e.output_tokens) == (128, 128, 128 * 544, 512)
    assert e.saved_prompt_tokens == e.prompt_tokens - e.computed_prompt_tokens
    assert sum(level.saved for level in e.levels) == e.saved_prompt_tokens
    assert sum(level.tokens for level in e.levels) == e.computed_prompt_tokens


def test_what_is_asked_is_taken() -> None:
    plan = plan_of(of(groups(2, 4, 64, 16)), chunk=96, kv_tokens=1600, page_size=32)
    assert (plan.chunk, plan.kv_tokens, plan.page_size) == (96, 1600, 32)
    assert plan.decision("chunk").reason == plan.decision("kv_tokens").reason == "as asked"


def test_a_backend_that_the_machine_cannot_run_is_refused_as_the_run_refuses_it() -> None:
    load, config = of(groups(2, 4, 64, 16)), EngineConfig("tiny", attention_backend="flashinfer")
    cpu, gpu = dataclasses.replace(MACHINE, device="cpu"), dataclasses.replace(MACHINE, device="cuda")
    assert "priced as the default until" in make_plan(load, SPEC, config, gpu).decision("attention").reason
    with pytest.raises(UsageError, match="cannot serve this model here: it runs on cuda, and this is cpu"):
        make_plan(load, SPEC, config, cpu)
    for machine, why in ((cpu, "it runs on cuda, and this is cpu"), (gpu, "taken only by name")):
        refusals = {r.technique: r.reason for r in make_plan(load, SPEC, EngineConfig("tiny"), machine).refusals}
        assert why in refusals["attention: flashinfer"]


def test_every_decision_has_a_reason() -> None:
    for make in CANONICAL.values():
        decisions = plan_of(make()).decisions
        assert all(d.reason for d in decisions)
        assert len({d.name for d in decisions}) == len(decisions)
    with pytest.raises(KeyError):
        plan_of(of([[1]])).decision("nothing")


def test_passes_can_be_left_out() -> None:
    workload = of(groups(2, 8, 64, 16))
    without = make_plan(workload, SPEC, EngineConfig("tiny", skip=("prefix",)), MACHINE)
    assert without.estimates.computed_prompt_tokens == len(workload.tokens)
    assert without.estimates.seconds[1] > plan_of(workload).estimates.seconds[1]
    bare = make_plan(workload, SPEC, EngineConfig("tiny", kv_tokens=160, skip=tuple(PASSES)), MACHINE)
    assert (bare.estimates.rows, bare.admission) == (16, "aggressive")
    with pytest.raises(UsageError, match="did you mean 'prefix'"):
        make_plan(workload, SPEC, EngineConfig("tiny", skip=("prefixes",)), MACHINE)


def test_lengths_are_bounded_by_the_context() -> None:
    prompts = [[1] * 4090, [2] * 10, [3] * 10]
    params = [SamplingParams(max_tokens=50), SamplingParams(), SamplingParams(max_tokens=5, n=3)]
    plan = plan_of(Workload.of(prompts, params))
    assert plan.lengths.tolist() == [6, UNBOUNDED, 5]
    assert plan.estimates.output_tokens == 6 + UNBOUNDED + 15
    assert "1 row " in plan.decision("output tokens").reason


def test_rows_that_want_no_tokens_are_expected_to_have_none() -> None:
    params = [SamplingParams(max_tokens=0 if i % 2 else 3, prompt_logprobs=0) for i in range(10)]
    plan = plan_of(Workload.of([[i, *run(i, 20)] for i in range(10)], params))
    assert plan.lengths.tolist() == [3, 0] * 5 and plan.estimates.output_tokens == 15
    none = plan_of(Workload.of([[5, 6], [7]], params[1]))
    assert none.estimates.output_tokens == 0 and none.estimates.steps == 1


def test_duplicates_have_equal_tokens_and_params() -> None:
    a, b = SamplingParams(max_tokens=4), SamplingParams(max_tokens=4, seed=1)
    workload = Workload.of([[1, 2], [1, 2], [1, 2], [1], [1, 2]], [a, SamplingParams(max_tokens=4), b, a, b])
    assert plan_of(workload).estimates.duplicate_rows == 2


def test_a_small_machine_gets_a_small_pool() -> None:
    workload = of(groups(8, 32, 256, 32))
    small = MACHINE.with_memory(2_000_000)
    plan = make_plan(workload, SPEC, EngineConfig("tiny"), small)
    assert plan.kv_tokens < plan_of(workload).kv_tokens
    assert plan.kv_tokens % plan.page_size == 0
    assert plan.estimates.kv_peak_tokens <= plan.kv_tokens
    with pytest.raises(CapacityError, match="largest row needs KV for"):
        make_plan(of([[1] * 4000]), SPEC, EngineConfig("tiny"), small)


def test_the_pool_holds_a_row_to_the_end_of_its_context() -> None:
    plan = plan_of(of([[1] * 10], max_tokens=None))
    assert plan.lengths.tolist() == [UNBOUNDED]
    assert plan.kv_tokens >= SPEC.max_positions


def test_the_pool_is_no_larger_than_rows_at_once_can_use() -> None:
    plan = plan_of(of([[i % 900, i // 900, 7] for i in range(20_000)]))
    assert plan.kv_tokens <= (plan.chunk * 2 + 900 * 2 + 1) * 16


def test_loaded_weights_are_not_counted_twice() -> None:
    workload = of(groups(200, 2, 256, 32), max_tokens=400)
    small = MACHINE.with_memory(4_000_000)
    plans = [make_plan(workload, SPEC, EngineConfig("tiny"), small, loaded=loaded) for loaded in (False, True)]
    assert plans[0].kv_tokens < plans[1].kv_tokens < plan_of(workload).kv_tokens


@pytest.mark.parametrize(("dtype", "chosen"), [("float32", "float32"), ("bfloat16", "float32")])
def test_dtype_is_one_the_machine_has(dtype: str, chosen: str) -> None:
    spec = dataclasses.replace(SPEC, dtype=dtype)
    assert make_plan(of([[1]]), spec, EngineConfig("tiny"), MACHINE).decision("dtype").value == chosen


@pytest.mark.parametrize(("chunk_price", "chosen"), [(1e-9, 512), (1.0, 2048)])
def test_chunk_grows_with_the_cost_of_a_step(chunk_price: float, chosen: int) -> None:
    machine = dataclasses.replace(MACHINE, layer_overhead=chunk_price, memory_rate=1e15)
    plan = make_plan(of(groups(40, 10, 100, 20)), SPEC, EngineConfig("tiny"), machine)
    assert plan.chunk == chosen
    assert len(plan.decision("chunk").alternatives) == 2


def timeline(workload: Workload, chunk: int, kv_tokens: int, length: int):
    forest = plan_of(workload).forest
    n = len(workload)
    rows = WalkSamples.of(forest, forest.order, np.ones(n, np.int64), np.full(n, length), 16)
    return walk(forest, rows, Limits(chunk, kv_tokens, 16))


def test_walk_of_one_row_counts_its_steps() -> None:
    found = timeline(of([[7] * 100]), chunk=64, kv_tokens=160, length=10)
    assert found.steps == 2 + 9  # two chunks of prompt, the second gives the first token
    assert found.kv_peak_tokens == 7 * 16 + 16


def test_walk_releases_a_group_before_the_next_needs_its_room() -> None:
    prompts = groups(10, 8, 160, 16)
    roomy = timeline(of(prompts), chunk=176, kv_tokens=10**6, length=2)
    tight = timeline(of(prompts), chunk=176, kv_tokens=800, length=2)
    assert tight.kv_peak_tokens <= 800
    assert roomy.kv_peak_tokens < 10 * (160 + 8 * 32)  # the first groups are gone when the last ones come
    assert tight.steps >= roomy.steps


def test_logits_of_scored_tokens_are_counted_once_and_paid_for() -> None:
    """Rows that share want scores from different places on; a sum over the trie of all rows is the oracle."""
    prompts = [*groups(3, 5, 40, 7), [9, *run(9, 30)], run(4, 12), [5], [5]]
    params = [
        SamplingParams(max_tokens=2, prompt_logprobs=None if i % 4 == 0 else 1, logprob_start_len=i % 3 * 20)
        for i in range(len(prompts))
    ]
    wanted = {
        tuple(prompt[: at + 1])
        for prompt, asked in zip(prompts, params, strict=True)
        for at in range(max(asked.logprob_start_len, 1), len(prompt))
        if asked.prompt_logprobs is not None
    }
    plain = [dataclasses.replace(one, prompt_logprobs=None) for one in params]
    every_fork = EngineConfig("x", dtype="float32", prefix="every-fork", chunk=16)
    drafts = []
    for each in (params, plain):
        load = Workload.of(prompts, each)
        draft = draft_of(load, SPEC, every_fork, MACHINE, loaded=False, known=None, asked_dtype=None)
        for _, one in chosen_passes(()):
            draft = one(draft)
        drafts.append(draft)
    assert [scored_tokens(draft) for draft in drafts] == [len(wanted), 0]
    loads = [run_draft(draft)[1] for draft in drafts]
    drawn = [float((load.steps * load.samples).sum()) for load in loads]
    assert drawn[0] - drawn[1] == pytest.approx(len(wanted))
    assert drafts[0].price.total(loads[0]).expected > drafts[1].price.total(loads[1]).expected


def test_very_many_rows_are_walked_together(monkeypatch: pytest.MonkeyPatch) -> None:
    workload = of([[i % 20, i // 20, *run(i, 12)] for i in range(3_000)], max_tokens=24)
    exact = plan_of(workload, chunk=256, kv_tokens=8_000).estimates
    monkeypatch.setattr("umbel.plan.walk.samples.EXACT_SAMPLES", 300)
    rough = plan_of(workload, chunk=256, kv_tokens=8_000).estimates
    assert rough.steps == pytest.approx(exact.steps, rel=0.05)
    assert rough.kv_peak_tokens == pytest.approx(exact.kv_peak_tokens, rel=0.05)
    assert rough.seconds[1] == pytest.approx(exact.seconds[1], rel=0.05)


@given(
    st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=30), min_size=1, max_size=12),
    st.integers(1, 40),
    st.integers(1, 20),
    st.integers(1, 60),
)
def test_walk_computes_every_token_once(prompts: list[list[int]], chunk: int, length: int, pages: int) -> None:
    workload = of(prompts)
    found = timeline(workload, chunk, pages * 16, length)
    load = found.load
    forest = plan_of(workload).forest
    # Each row draws `length` tokens; all but its first are fed again to draw the next.
    fed = forest.n_tokens + len(prompts) * (length - 1)
    assert float((load.tokens * load.steps).sum()) == pytest.approx(fed, rel=1e-6)
    assert float((load.samples * load.steps).sum()) == pytest.approx(len(prompts) * length, rel=1e-6)
    assert 0 < found.kv_peak_tokens <= pages * 16
