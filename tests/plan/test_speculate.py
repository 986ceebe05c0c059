"""Who proposes tokens, as the plan decides it: by history and price, and up to how many running rows that pays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from umbel.config import EngineConfig
from umbel.cost.drafts import LEVELS, Offers
from umbel.cost.history import History
from umbel.cost.known import Known
from umbel.cost.machine import named
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
    return next(one.reason for one in plan.refusals if one.technique == "drafter: batch")


def test_without_history_nobody_proposes_unless_asked() -> None:
    plan = plan_of()
    assert plan.speculate == "off"
    assert "nothing is known yet" in refusal(plan)
    asked = plan_of(speculate="batch")
    assert (asked.speculate, asked.estimates.steps) == ("batch", plan.estimates.steps)
    assert "nothing is known yet" in asked.decision("speculate").reason
    assert "those without" in plan_of(speculate="ngram").decision("speculate").reason
    assert plan_of(Known(offers={"": GOOD}), speculate="off").decision("speculate").value == "off"


def test_with_history_it_is_priced() -> None:
    known = Known(offers={"": GOOD})
    plain, sped = plan_of(known, speculate="off"), plan_of(known)
    assert sped.speculate == "batch"
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
