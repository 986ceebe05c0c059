"""Interactive rules on a virtual clock: gaps, first tokens and shares, by hand-made cases."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.parameters import few_of
from umbel.config import EngineConfig
from umbel.cost.cards import card
from umbel.cost.load import Load
from umbel.cost.quantised import price_of
from umbel.cost.roofline import Price
from umbel.ir.params import SamplingParams
from umbel.ir.workload import Workload
from umbel.sched.lot import Standing
from umbel.sched.policies.fair import DRAWN, PROMPT, Fair
from umbel.sched.policies.layered import LayerPace
from umbel.sched.policies.leftover import SHARE
from umbel.sched.policies.policy import Policy
from umbel.sched.policies.stall_free import LEAST, StepPace
from umbel.sim.online import FixedPrices, Replay, Requests
from umbel.sim.shapes import SHAPES

PRICE = price_of(SHAPES["llama-3.1-8b"], EngineConfig("demo", dtype="bfloat16"), card("h100"))
TARGET = 0.03


def requests(
    at: list[float], prompts: list[int], answers: list[int], standing: Standing | None = None, watched: int = 10**6
) -> Requests:
    """Requests that share nothing; the first `watched` stream."""
    load = Workload.of(
        [[i, *[5] * (size - 1)] for i, size in enumerate(prompts)], SamplingParams(temperature=0.0, max_tokens=2048)
    )
    streams = np.arange(len(at)) < watched
    return Requests(np.array(at), load, np.array(answers), streams, standing or Standing.alike(len(at)))


def played(asked: Requests, policy: Policy, chunk: int = 4096, price: Price = PRICE) -> Replay:
    replay = Replay(asked, price, policy, kv_tokens=200_000, chunk=chunk)
    replay.run()
    assert [len(times) for times, watched in zip(replay.times, asked.watched, strict=True) if watched] == [
        length for length, watched in zip(asked.lengths.tolist(), asked.watched, strict=True) if watched
    ]
    return replay


def gaps(replay: Replay) -> np.ndarray:
    return np.concatenate([np.diff(times) for times in replay.times])


def stall_free(target: float = TARGET, queue: str = "priority") -> Policy:
    return Policy(queue=queue, pace=StepPace(FixedPrices(PRICE), target))


@pytest.mark.parametrize("seed", few_of([0], range(1, 6)))
def test_the_worst_gap_is_one_budgeted_step_under_stall_free_and_beyond_it_under_prefill_first(seed: int) -> None:
    """Long prompts keep coming while answers run."""
    rng = np.random.default_rng(seed)
    at = np.sort(rng.uniform(0, 3, 40)).tolist()
    asked = requests(at, rng.integers(200, 4000, 40).tolist(), rng.integers(20, 150, 40).tolist())
    calm, first = played(asked, stall_free()), played(asked, Policy(queue="priority", step="prefill-first"))
    assert gaps(calm).max() <= TARGET + 1e-9
    assert gaps(first).max() > 3 * TARGET
    waits = [np.mean([times[0] - came for times, came in zip(r.times, at, strict=True)]) for r in (calm, first)]
    assert waits[0] < 2.5 * waits[1], "prompts are not starved for it"


def test_layers_in_groups_keep_to_the_target_and_are_done_sooner_than_chunks() -> None:
    """Of a mixture of experts, on one trace with both others: a chunk reads nearly all experts."""
    spec, target = SHAPES["qwen3-30b-a3b"], 0.03
    price = price_of(spec, EngineConfig("demo", dtype="bfloat16"), card("h100"))
    pace = LayerPace(FixedPrices(price), target, spec.n_layers)
    asked = requests([0.3 * i for i in range(10)], [100, *[1500] * 9], [150, *[20] * 9])
    rules = {
        "chunks": Policy(queue="priority", pace=pace),
        "groups": Policy(queue="priority", step="layered", pace=pace),
        "prefill-first": Policy(queue="priority", step="prefill-first"),
    }
    ran = {name: played(asked, policy, price=price) for name, policy in rules.items()}
    worst = {name: gaps(replay).max() for name, replay in ran.items()}
    assert max(worst["chunks"], worst["groups"]) <= target * 1.05 < worst["prefill-first"]
    waits = {n: np.mean([times[0] - at for times, at in zip(r.times, asked.at, strict=True)]) for n, r in ran.items()}
    assert waits["groups"] < waits["chunks"] / 2


def test_a_prompt_alone_takes_the_largest_steps() -> None:
    asked = requests([0.0], [4000], [3])
    assert played(asked, stall_free()).loop.stats().steps == 3


def test_prompts_go_on_though_the_target_cannot_be_met() -> None:
    """Decoding alone takes longer than the target: a few tokens of prompts are in each step all the same."""
    asked = requests([0.0, 0.05], [100, 400], [200, 2])
    replay = played(asked, stall_free(1e-4))
    assert replay.times[1][0] < replay.times[0][-1]
    assert replay.loop.stats().steps >= 400 // LEAST


def test_rows_that_no_one_watches_use_what_is_left_of_the_target() -> None:
    """So many rows of a batch that a step with all of them is beyond the target; the watched row keeps to it."""
    n = 220
    stands = replace(Standing.alike(n + 1), priority=np.append(0, np.full(n, 9)))
    asked = requests([0.5, *[0.0] * n], [64, *[500] * n], [60, *[80] * n], stands, watched=1)
    order = np.argsort(asked.at, kind="stable")
    asked = replace(
        asked,
        at=asked.at[order],
        workload=Workload.of([asked.workload.prompt(i).tolist() for i in order], asked.workload.params[0]),
        lengths=asked.lengths[order],
        watched=asked.watched[order],
        standing=replace(stands, priority=stands.priority[order]),
    )
    alone = Load.one(1, 1, 100, 100)
    target = 1.35 * float(PRICE.each(alone)[0])
    for pace, kept in ((StepPace(FixedPrices(PRICE), target), True), (None, False)):
        replay = played(asked, Policy(queue="priority", pace=pace))
        assert (gaps(replay).max() <= target + 1e-9) == kept
    assert replay.loop.stats().rows_done == n + 1


def beneath(n_batch: int, answer: int = 60) -> Requests:
    """Three watched requests, and rows of a batch below them, all there from the start."""
    n = 3 + n_batch
    stands = replace(Standing.alike(n), priority=np.append(np.zeros(3, int), np.full(n_batch, 9)))
    return requests([0.0] * n, [64] * 3 + [500] * n_batch, [answer] * 3 + [80] * n_batch, stands, watched=3)


def test_without_a_target_a_batch_gets_a_tenth_of_each_step_and_uses_it() -> None:
    """Gaps of watched rows are at most a tenth longer than alone, and nine tenths of that tenth are used."""
    policy = Policy(queue="priority", pace=StepPace(FixedPrices(PRICE), None))
    alone, beside, unbound = (
        played(beneath(n), rules) for n, rules in ((0, policy), (300, policy), (300, Policy(queue="priority")))
    )
    ratio = gaps_of_watched(beside) / gaps_of_watched(alone)
    assert ratio.max() <= 1 + SHARE + 1e-9
    assert ratio[:, 5:].min() >= 1 + 0.9 * SHARE  # once rows of the batch decode, there is always one that fits
    assert (gaps_of_watched(unbound) / gaps_of_watched(alone)).max() > 2, "without the rule, their prompts stall them"
    assert beside.loop.stats().rows_done == 303, "and all of the batch is done behind them"


def gaps_of_watched(replay: Replay) -> np.ndarray:
    return np.array([np.diff(times) for times in replay.times[:3]])


def test_a_batch_alone_has_whole_steps() -> None:
    """No row streams, so that the rule binds nothing."""
    stands = Standing.alike(20, 9)
    asked = requests([0.0] * 20, [500] * 20, [10] * 20, stands, watched=0)
    steps = [
        played(asked, Policy(queue="priority", pace=pace)).loop.stats().steps
        for pace in (StepPace(FixedPrices(PRICE), None), None)
    ]
    assert steps[0] == steps[1]


def test_the_counters_of_tenants_stay_within_the_bound() -> None:
    """One asks for ten times as much as the other, all at once; as long as both wait, neither is served much more."""
    sizes = [400] * 60 + [40] * 60
    answers = [100] * 60 + [30] * 60
    stands = replace(Standing.alike(120), tenant=np.repeat([1, 2], 60))
    asked = requests([0.0] * 120, sizes, answers, stands)
    cap, widest = 6, list[float]()
    replay = Replay(asked, PRICE, Policy(queue="fair", max_running=cap), kv_tokens=200_000, chunk=512)
    waiting = replay.loop.scheduler.waiting
    assert isinstance(waiting, Fair)
    step = replay.loop.step

    def watched() -> list:  # type: ignore[type-arg]
        found = step()
        if len({line for _, line in waiting.lines()}) == 2:
            widest.append(abs(waiting.served[1] - waiting.served[2]))
        return found

    replay.loop.step = watched  # type: ignore[method-assign]
    replay.run()
    bound = 2 * max(PROMPT * 400, DRAWN * cap * 100)
    assert len(widest) > 100 and max(widest) <= bound
    assert np.mean([times[-1] for times in replay.times[60:]]) < np.mean([times[-1] for times in replay.times[:60]]) / 2


def test_a_tenant_that_was_away_has_saved_nothing_up() -> None:
    """It comes late and does not make the other wait for all that it did not ask for."""
    stands = replace(Standing.alike(80), tenant=np.append(np.full(40, 1), np.full(40, 2)))
    asked = requests([0.0] * 40 + [1.0] * 40, [400] * 80, [60] * 80, stands)
    replay = played(asked, Policy(queue="fair", max_running=4), chunk=512)
    late = [times[0] for times in replay.times[:40] if times[0] > 1.0]
    theirs = [times[0] for times in replay.times[40:]]
    assert len(late) > 10 and sorted(late)[5] < sorted(theirs)[10], "they take turns"


def test_the_row_that_has_to_start_first_goes_first() -> None:
    """Of the same target, a long prompt has to start before a short one that came a little earlier."""
    sizes, at = [2000, 50, 50, 3000], [0.0, 0.01, 0.02, 0.03]
    seconds = [float(PRICE.each(Load.one(n, 1, n * n / 2, n))[0]) for n in sizes]
    due = np.array(at) + 0.5 - np.array(seconds)
    stands = replace(Standing.alike(4), due=due)
    asked = requests(at, sizes, [40, 2, 2, 2], stands)
    firsts = {}
    for queue in ("deadline", "priority"):
        replay = played(asked, Policy(queue=queue, max_running=1), chunk=512)
        firsts[queue] = np.argsort([times[0] for times in replay.times]).tolist()
    assert firsts == {"deadline": [0, 3, 1, 2], "priority": [0, 1, 2, 3]}


def test_prompts_under_way_go_on_by_deadline() -> None:
    """A prompt that is half computed waits for one that is due before it."""
    stands = replace(Standing.alike(2), due=np.array([9.0, 1.0]))
    asked = requests([0.0, 0.02], [4000, 300], [2, 2], stands)
    replay = played(asked, Policy(queue="deadline"), chunk=512)
    assert replay.times[1][0] < replay.times[0][0]
    plain = played(asked, Policy(queue="priority"), chunk=512)
    assert plain.times[0][0] < plain.times[1][0]
