"""Who proposes tokens, as the plan decides it: by history and price, and up to how many running rows that pays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from umbel.config import EngineConfig
from umbel.cost.cards import named
from umbel.cost.draft_law import PLACES, DraftLaw
from umbel.cost.drafts import LEVELS, Offers
from umbel.cost.history import History
from umbel.cost.known import Known
from umbel.ir.params import SamplingParams
from umbel.ir.plan import Plan
from umbel.ir.spec import ModelSpec
from umbel.ir.workload import Workload
from umbel.plan.planner import make_plan

SPEC = ModelSpec("llama", 32_000, 2048, 24, 16, 8, 128, 8192, 4096, 1e-5, 1e4, dtype="bfloat16")
GOOD = Offers(1000.0, np.append(np.zeros(LEVELS - 1), 4000.0))  # four tokens a row and step, nearly all come true
ROWS = 8


def plan_of(known: Known | None = None, rows: int = ROWS, **options: object) -> Plan:
    """The plan of some rows of 40 tokens that write 200."""
    draw = np.random.default_rng(0)
    prompts = [draw.integers(0, 32_000, 40).tolist() for _ in range(rows)]
    params = SamplingParams(max_tokens=200, temperature=0.0, ignore_eos=True)
    config = EngineConfig("demo", dtype="bfloat16", **options)  # type: ignore[arg-type]
    return make_plan(Workload.of(prompts, params), SPEC, config, named("h200"), known=known)


def refusal(plan: Plan) -> str:
    return next(one.reason for one in plan.refusals if one.technique == "drafter: lookup")


def test_without_history_nobody_proposes_unless_asked() -> None:
    plan = plan_of()
    assert plan.speculate == "off"
    assert "nothing is known yet" in refusal(plan)
    asked = plan_of(speculate="lookup")
    assert (asked.speculate, asked.estimates.steps) == ("lookup", plan.estimates.steps)
    assert "nothing is known yet" in asked.decision("speculate").reason
    assert "those without" in plan_of(speculate="ngram").decision("speculate").reason
    assert plan_of(Known(offers={"": GOOD}), speculate="off").decision("speculate").value == "off"


def test_with_history_it_is_priced() -> None:
    known = Known(offers={"": GOOD})
    plain, sped = plan_of(known, speculate="off"), plan_of(known)
    assert sped.speculate == "lookup"
    decision = sped.decision("speculate")
    assert decision.facts["drafted"] == pytest.approx(4)
    assert decision.facts["running"] == ROWS
    assert decision.facts["rows"] > ROWS
    assert "come true as in earlier runs" in decision.reason
    accepted = 4 * (1 - 0.5 / LEVELS)
    assert sped.estimates.steps == pytest.approx(1 + 199 / (1 + accepted), abs=2)
    assert sped.estimates.seconds[1] < 0.4 * plain.estimates.seconds[1]
    assert sped.estimates.output_tokens == plain.estimates.output_tokens
    assert sped.estimates.kv_peak_tokens == plain.estimates.kv_peak_tokens


def test_proposals_that_do_not_come_true_are_not_worth_it() -> None:
    plan = plan_of(Known(offers={"": replace(GOOD, counts=GOOD.counts[::-1] / 100)}))
    assert plan.speculate == "off"
    assert "would not be faster by much" in refusal(plan)
    assert plan_of(Known(offers={"": GOOD.scaled(0)})).speculate == "off"


def test_offers_are_kept_between_runs(tmp_path: Path) -> None:
    history = History(None, None, tmp_path / "drafts.json")
    history.learn_offers({"": GOOD, "a": GOOD})
    history.learn_offers({"a": GOOD})
    found = history.load().offers
    assert (found[""].asked, found["a"].asked) == (1000, 2000)
    assert found["a"].counts.tolist() == (2 * GOOD.counts).tolist()
    assert history.without_lengths().load().offers == {}


def law_with(chance: float) -> DraftLaw:
    """A drafter whose tokens come true so often, at each of four places."""
    tried = np.append(np.full(4, 1000.0), np.zeros(PLACES - 4))
    return DraftLaw(1000.0, tried, tried, tried * chance)


def test_another_drafter_is_priced_by_its_law() -> None:
    known = Known(laws={"ngram": {"": law_with(0.9)}})
    plain, sped = plan_of(known, speculate="off"), plan_of(known, speculate="ngram")
    decision = sped.decision("speculate")
    assert (decision.facts["most"], decision.facts["running"]) == (4, ROWS)
    assert "90% of its first tokens came true" in decision.reason
    assert sped.estimates.steps == pytest.approx(1 + 199 / (1 + float(decision.facts["accepted"])), abs=2)
    assert sped.estimates.seconds[1] < 0.5 * plain.estimates.seconds[1]
    rare = plan_of(Known(laws={"ngram": {"": law_with(0.0)}}), speculate="ngram")
    assert rare.estimates.steps == plain.estimates.steps
    assert "it would take" in rare.decision("speculate").reason


def test_a_measured_drafter_that_nobody_asked_for_is_refused_with_its_gain() -> None:
    plan = plan_of(Known(laws={"ngram": {"": law_with(0.9)}, "lookup": {"": law_with(0.9)}}))
    (refused,) = (one for one in plan.refusals if one.technique == "drafter: ngram")
    assert plan.speculate == "off"
    assert refused.seconds is not None and refused.seconds < 0
    assert "--speculate ngram" in refused.reason


def test_the_law_of_a_template_that_the_rows_have_counts() -> None:
    """Rows of no known template get what all templates together have."""
    laws = {"a": law_with(0.9), "b": law_with(0.1)}
    plan = plan_of(Known(laws={"ngram": laws}), speculate="ngram")
    assert float(plan.decision("speculate").facts["first"]) == pytest.approx(0.5, abs=0.01)
    plan = plan_of(Known(laws={"ngram": {**laws, "": law_with(0.8)}}), speculate="ngram")
    assert float(plan.decision("speculate").facts["first"]) == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize(("drafter", "known"), [
    ("lookup", Known(offers={"": GOOD})), ("ngram", Known(laws={"ngram": {"": law_with(0.98)}}))
])  # fmt: skip
def test_in_a_tight_pool_proposals_get_what_is_left(drafter: str, known: Known) -> None:
    """All rows of 240 tokens run, and their own tokens fill the pool: last pages of 16 tokens have some room for
    proposals, those of one token have none."""
    wide = plan_of(known, speculate=drafter, kv_tokens=1000 * 240)
    tight = plan_of(known, speculate=drafter, kv_tokens=ROWS * 220)
    none = plan_of(known, speculate=drafter, kv_tokens=ROWS * 220, page_size=1)
    drafted = [int(plan.decision("draft_tokens").value) for plan in (wide, tight, none)]
    assert drafted[0] > drafted[1] > drafted[2] == 0
    assert "holds all" in wide.decision("draft_tokens").reason
    assert "too few for all" in tight.decision("draft_tokens").reason
    assert wide.estimates.steps < tight.estimates.steps < none.estimates.steps
    plain = plan_of(speculate="off", kv_tokens=ROWS * 220, page_size=1)
    assert none.estimates.steps == plain.estimates.steps


def test_auto_takes_no_drafter_for_which_the_pool_has_no_room() -> None:
    plan = plan_of(Known(offers={"": GOOD}), kv_tokens=ROWS * 220, page_size=1)
    assert plan.speculate == "off"
    assert "no room" in refusal(plan)


def test_laws_are_kept_between_runs(tmp_path: Path) -> None:
    history = History(None, None, None, tmp_path / "laws.json")
    history.learn_laws("ngram", {"": law_with(0.5), "a": law_with(0.5)})
    history.learn_laws("lookup", {"": law_with(0.25)})
    history.learn_laws("ngram", {"a": law_with(0.5)})
    found = history.load().laws
    assert sorted(found) == ["lookup", "ngram"]
    assert (found["ngram"][""].asked, found["ngram"]["a"].asked, found["lookup"][""].true[0]) == (1000, 2000, 250)
    assert history.without_lengths().load().laws == {}
