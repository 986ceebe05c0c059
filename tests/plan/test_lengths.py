"""The lengths pass: templates, what earlier runs say of them, and an interval that says how sure that is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.plan.workloads import MACHINE, SPEC, groups, of, run
from umbel.config import EngineConfig
from umbel.cost.known import Known
from umbel.cost.lengths import LengthCurve
from umbel.cost.roofline import Price
from umbel.cost.shape import Shape
from umbel.ir.params import SamplingParams
from umbel.ir.plan import Plan
from umbel.ir.pooling import PoolingParams
from umbel.ir.workload import Workload
from umbel.plan.draft import PlanDraft
from umbel.plan.passes.lengths import TEMPLATE_ROWS, UNBOUNDED, assume_lengths
from umbel.plan.passes.prefix import share_prefixes
from umbel.plan.planner import make_plan


def plan_of(workload: Workload, known: dict[str, LengthCurve] | None = None, **options: object) -> Plan:
    return make_plan(workload, SPEC, EngineConfig.of("tiny", **options), MACHINE, known=Known(known or {}))


def test_rows_that_begin_alike_are_a_template_known_again_elsewhere() -> None:
    """Three beginnings, one of them too rare; the same beginning in another job, over other rows, has the same name."""
    heads = [[h, *run(h, 60)] for h in range(3)]
    counts = (TEMPLATE_ROWS, TEMPLATE_ROWS + 5, TEMPLATE_ROWS - 1)
    prompts = [[*heads[h], i, 7] for h, count in enumerate(counts) for i in range(count)]
    plan = plan_of(Workload.of(prompts, SamplingParams(max_tokens=9)))
    assert len(plan.templates) == len(set(plan.templates)) == 3 and plan.templates[0] == ""
    assert plan.groups.tolist() == [1] * counts[0] + [2] * counts[1] + [0] * counts[2]
    other = plan_of(Workload.of([[*heads[1], 500 + i] for i in range(40)], SamplingParams(max_tokens=3)))
    assert other.templates == ("", plan.templates[2])


def test_without_history_rows_run_to_their_limits_and_the_plan_says_so() -> None:
    plan = plan_of(of(groups(2, 30, 40, 8), max_tokens=50))
    assert set(plan.lengths.tolist()) == {50}
    assert plan.decision("output tokens").reason == "every row runs to its max_tokens"
    assert plan.estimates.output_range == (60, 3000)
    low, expected, high = plan.estimates.seconds
    assert low < 0.5 * expected and high > expected
    guessed = plan_of(of(groups(2, 30, 40, 8), max_tokens=None))
    assert guessed.estimates.output_range[0] == 60 and guessed.estimates.output_range[1] > 60 * UNBOUNDED
    assert (
        set(guessed.lengths.tolist()) == {UNBOUNDED}
        and "128 tokens assumed" in guessed.decision("output tokens").reason
    )


def test_where_no_row_writes_nothing_is_expected() -> None:
    plan = plan_of(Workload.of([[1, 2], [3, 4]], SamplingParams(pooling_params=PoolingParams())))
    assert plan.decision("output tokens").reason == "no row writes: each is read, for a vector or for scores"
    beside = plan_of(Workload.of([[1, 2], [3, 4]], [SamplingParams(pooling_params=PoolingParams()), SamplingParams()]))
    assert "1 row sets no max_tokens" in beside.decision("output tokens").reason


def test_rows_that_only_their_limit_can_end_are_certain() -> None:
    limited, free = SamplingParams(max_tokens=90, ignore_eos=True), SamplingParams(ignore_eos=True)
    estimates = plan_of(Workload.of([[1, 2], [3, 4]], [limited, free])).estimates
    whole = 90 + SPEC.max_positions - 2
    assert estimates.output_tokens == whole and estimates.output_range == (whole, whole)


def test_answers_that_were_stopped_say_little_of_rows_without_limit() -> None:
    """None of 2,000 answers was seen to end: they are longer than 200 tokens, and how much longer is not known. The
    expectation lies between, and the interval goes from there to the limit."""
    known = {"": LengthCurve.of(np.zeros(0, np.int64), np.full(2000, 200))}
    params = [SamplingParams()] * 2
    estimates = plan_of(Workload.of([[1, 2], [3, 4]], params), known).estimates
    most = 2 * (SPEC.max_positions - 2)
    assert 400 < estimates.output_tokens < 0.6 * most
    assert estimates.output_range == (400, most)
    low, expected, high = estimates.seconds
    assert low < 0.7 * expected < 1.5 * expected < high
    half = {"": LengthCurve.of(np.full(1000, 20), np.full(1000, 30))}
    low, high = plan_of(Workload.of([[1, 2], [3, 4]], params), half).estimates.output_range
    assert low < 2 * 25 and high > 0.45 * most


def test_templates_that_are_known_are_expected_to_answer_as_they_did() -> None:
    workload = of(groups(2, 30, 40, 8), max_tokens=50)
    first, second = plan_of(workload).templates[1:]
    known = {first: LengthCurve.of(np.full(500, 12)), "": LengthCurve.of(np.full(500, 30))}
    plan = plan_of(workload, known)
    # The first leans a little on all rows; the second is known as part of them only.
    assert plan.lengths[plan.groups == 1].tolist() == pytest.approx([12] * 30, abs=2)
    assert set(plan.lengths[plan.groups == 2].tolist()) == {30}
    assert plan_of(workload, {second: known[first]}).lengths.tolist() == [50] * 30 + [12] * 30


def test_expectations_never_exceed_limits_and_leave_rows_alone_that_ignore_the_end() -> None:
    params = [SamplingParams(max_tokens=20), SamplingParams(max_tokens=90, ignore_eos=True), SamplingParams()]
    plan = plan_of(Workload.of([[1, 2], [3, 4], [5, 6]], params), {"": LengthCurve.of(np.full(500, 40))})
    assert plan.lengths.tolist() == [20, 90, 40]
    reason = plan.decision("output tokens").reason
    assert "if 2 rows answer as in earlier runs; the others run to their limits" in reason


def test_the_interval_holds_the_truth_nine_times_of_ten() -> None:
    """Jobs whose answers are drawn from the lengths that earlier answers were drawn from."""
    rng = np.random.default_rng(0)
    workload = of(groups(1, 200, 40, 8), max_tokens=2000)
    price = Price(Shape.of(SPEC, "float32"), MACHINE, "float32", SPEC.n_layers)
    shared = share_prefixes(PlanDraft.of(workload, SPEC, EngineConfig("tiny"), price))
    name = assume_lengths(shared).templates[1]

    def interval(answers: int) -> tuple[float, float]:
        known = Known({name: LengthCurve.of(rng.geometric(0.01, answers))})
        draft = assume_lengths(replace(shared, known=known))
        total = int((draft.lengths * draft.samples).sum())
        return total * (1 - draft.output_spread), total * (1 + draft.output_spread)

    held = 0
    for _ in range(200):
        low, high = interval(100)
        held += low <= int(rng.geometric(0.01, 200).sum()) <= high
    assert 165 <= held <= 197
    low, high = interval(6)
    assert high > 1.5 * low


def test_the_interval_of_all_answers_stays_within_what_they_may_be() -> None:
    """Two rows of at most three tokens write two to six in all, whatever earlier answers were like."""
    known = {"": LengthCurve.of(np.array([1, 2, 3, 3, 2, 1, 3]))}
    workload = Workload.of([[1, 2], [3, 4]], [SamplingParams(max_tokens=3)] * 2)
    low, high = plan_of(workload, known).estimates.output_range
    assert 2 <= low < high <= 6
    many = Workload.of([[1, 2, i] for i in range(400)], [SamplingParams(max_tokens=3, n=2)] * 400)
    estimates = plan_of(many, {"": LengthCurve.of(np.array([3.0] * 5 + [1.0]))}).estimates
    assert 800 <= estimates.output_range[0] <= estimates.output_tokens <= estimates.output_range[1] <= 2_400


def test_a_pool_that_may_be_too_small_has_a_rule_of_admission() -> None:
    workload = of(groups(4, 24, 256, 32), max_tokens=400)
    tight = plan_of(workload, kv_tokens=6000).decision("admission")
    assert tight.value == "past-future"
    assert "probability 0.01" in tight.reason and "expected ceiling 6,000 tokens" in tight.reason
    known = {"": LengthCurve.of(np.arange(1, 400))}
    reason = plan_of(workload, known, kv_tokens=6000).decision("admission").reason
    ceiling = int(reason.split("ceiling ")[1].split(" ")[0].replace(",", ""))
    assert 3000 <= ceiling < 6000
    assert plan_of(workload, kv_tokens=6000, admission="conservative").decision("admission").value == "conservative"
    with pytest.raises(KeyError):
        plan_of(workload).decision("admission")  # everything fits at once


def test_walks_are_given_lengths_spread_as_answers_are() -> None:
    """Half answer with 4 tokens and half with 40: the mean is no one's, and the run lasts as long as the longest do."""
    workload = of([[*run(1, 40), i] for i in range(200)], max_tokens=50)
    template = plan_of(workload).templates[1]
    known = {template: LengthCurve.of(np.repeat([4, 40], 500))}
    draft = PlanDraft.of(workload, SPEC, EngineConfig("tiny"), Price(Shape.of(SPEC, "float32"), MACHINE, "float32", 2))
    walked = assume_lengths(share_prefixes(replace(draft, known=Known(known)))).walked
    assert set(walked.tolist()) == {4, 40}
    assert 90 <= (walked == 4).sum() <= 110
    plan = plan_of(workload, known)
    assert set(plan.lengths.tolist()) == {22} and plan.estimates.steps >= 40


def test_what_nearly_all_prompts_begin_with_is_no_template() -> None:
    """A token before every prompt does not make one template of several."""
    heads = [[h, *run(h, 60)] for h in range(3)]
    plan = plan_of(of([[999, *heads[h], i, 7] for h in range(3) for i in range(30)]))
    assert len(plan.templates) == 4 and np.bincount(plan.groups).tolist() == [0, 30, 30, 30]
