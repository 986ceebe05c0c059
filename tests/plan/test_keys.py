"""Selectors in a plan: the keys that it expects to be read, its seconds, and what a run and its report have of both."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests.plan.workloads import MACHINE, SPEC, groups, of, run
from tests.tiny_models import make_model
from umbel import LLM, SamplingParams
from umbel.config import EngineConfig
from umbel.ir.plan import Plan
from umbel.ir.spec import ModelSpec
from umbel.ir.workload import Workload
from umbel.jobs.report.text import brief_text
from umbel.plan.planner import make_plan
from umbel.plan.walk.reading import selected_keys

BOTH = ("pages:budget=0.1", "vertical-slash:budget=0.2")


def plan_of(workload: Workload, *techniques: str, spec: ModelSpec = SPEC) -> Plan:
    return make_plan(workload, spec, EngineConfig("tiny", technique=techniques, allow_lossy=True), MACHINE)


def by_hand(workload: Workload, answer: int, *techniques: str) -> tuple[float, float]:
    """Keys read and keys there are, token by token, of prompts that share nothing."""
    keys = selected_keys(techniques, SPEC)
    assert keys is not None
    read = whole = 0.0
    for length in np.diff(workload.offsets).tolist():
        for position in range(length + answer - 1):
            price = keys.answers if position >= length else keys.prompts
            own = np.array(position + 1)
            read += position + 1 if price is None else float(price.keys_read(own))
            whole += position + 1
    return read, whole


@pytest.mark.parametrize("techniques", [BOTH, BOTH[:1], BOTH[1:]])
def test_planned_keys_are_those_of_every_token(techniques: tuple[str, ...]) -> None:
    workload = of([[i, *run(i, 1500 + 300 * i)] for i in range(4)], max_tokens=40)
    read, whole = by_hand(workload, 40, *techniques)
    facts = plan_of(workload, *techniques).decision("keys read").facts
    assert (facts["read"], facts["whole"]) == (round(read), whole)
    assert facts["skipped"] == round(whole - read) > 0


def test_shared_prompts_are_read_once_and_answers_by_each() -> None:
    shared = plan_of(of(groups(1, 8, 2000, 20), max_tokens=30), *BOTH).decision("keys read").facts
    alone = plan_of(of(groups(1, 1, 2000, 20), max_tokens=30), *BOTH).decision("keys read").facts
    answers = sum(range(2021, 2050))
    assert shared["whole"] < alone["whole"] + 7 * (answers + 20 * 2020)
    assert shared["whole"] > alone["whole"] + 7 * answers


def test_rows_that_leave_selectors_out_read_everything() -> None:
    """Two of four rows: the planned keys are those of two jobs, each with half of the rows."""
    prompts = [[i, *run(i, 1500 + 300 * i)] for i in range(4)]
    params = [of([[1]], max_tokens=40).params[0].clone(techniques=None if i < 2 else []) for i in range(4)]
    facts = plan_of(Workload.of(prompts, params), *BOTH).decision("keys read").facts
    takers, others = (by_hand(of(half, max_tokens=40), 40, *BOTH) for half in (prompts[:2], prompts[2:]))
    assert (facts["read"], facts["whole"]) == (round(takers[0] + others[1]), takers[1] + others[1])


def test_r_times_p_of_a_shared_run() -> None:
    """Eight rows on one run, of which three read a part of it each, and hold it once."""
    workload = of(groups(1, 8, 2000, 20), max_tokens=30)
    some = dataclasses.replace(
        workload, params=[workload.params[0].clone(techniques=None if i < 3 else []) for i in range(8)]
    )
    decision = plan_of(some, "pages:budget=0.25").decision("keys read")
    assert decision.facts["readers"] == 3 and decision.facts["r_p"] == pytest.approx(3 * decision.facts["share"])
    assert 0.25 < decision.facts["share"] < 0.35 and "(r * p = 0.9" in decision.reason


def test_what_is_not_read_takes_no_time_and_short_prompts_save_none() -> None:
    long, short = of([[i, *run(i, 3800)] for i in range(6)], max_tokens=20), of([[i, *run(i, 90)] for i in range(60)])
    thin = dataclasses.replace(SPEC, hidden_size=16, intermediate_size=16)  # whose attention is most of the work
    dense, fewer, fewest = (
        plan_of(long, *asked, spec=thin).estimates.seconds[1]
        for asked in ((), ("vertical-slash:budget=0.5",), ("vertical-slash:budget=0.1",))
    )
    assert fewest < fewer < dense
    assert plan_of(short, *BOTH).estimates.seconds == plan_of(short).estimates.seconds
    assert plan_of(short, *BOTH).decision("keys read").facts["skipped"] == 0


def test_a_full_budget_is_planned_as_dense() -> None:
    workload = of([[i, *run(i, 2500)] for i in range(3)], max_tokens=20)
    assert plan_of(workload, "pages:budget=1").estimates.seconds == plan_of(workload).estimates.seconds


def test_a_run_reads_what_was_planned_and_the_report_has_both(tmp_path: Path) -> None:
    """`pages` reads what its price says, token by token."""
    directory = make_model(tmp_path / "model", "qwen3", max_position_embeddings=2048)
    llm = LLM(
        str(directory), speculate="off", technique="pages:budget=0.2", allow_lossy=True, device="cpu", dtype="float32"
    )
    prompts = [[(i * 7 + j) % 290 + 3 for j in range(900 + 200 * i)] for i in range(2)]
    params = SamplingParams(max_tokens=12, temperature=0.0, ignore_eos=True)
    planned = llm.plan_for(Workload.of(prompts, params)).decision("keys read").facts
    llm.generate(prompts, params)
    stats = llm.engine.stats()
    assert (stats.keys_read, stats.keys_whole) == (planned["read"], planned["whole"])
    counts = {"keys_read": stats.keys_read, "keys_whole": stats.keys_whole}
    decisions = [{"name": "keys read", "facts": dict(planned)}]
    share = f"{stats.keys_read / stats.keys_whole:.0%}"
    line = f"{stats.keys_read:,} of {stats.keys_whole:,} read in each layer ({share}; planned at most {share})"
    assert line in " ".join(brief_text(report_with(counts, decisions)).split())


def report_with(counts: dict[str, int], decisions: list[dict[str, object]]) -> dict[str, object]:
    """As much of a report as its short form needs."""
    names = ("seconds", "steps", "computed_prompt_tokens", "output_tokens", "kv_peak_tokens")
    figure = {"planned": 1, "due": 1, "actual": 1, "error_percent": 0.0}
    rows = {"stored": 1, "answered": 1, "failed": 0, "cut": 0, "planned": 1}
    return {
        **{"output": "out.jsonl", "status": "complete", "rows": rows, "errors": {}, "notes": [], "lossy": []},
        **{"parts": 1, "cut_short": 0, "tree": [], "spent": {}, "replicas": [], "seconds_range": [1, 1]},
        **{"figures": dict.fromkeys(names, figure), "counts": counts, "decisions": decisions},
    }
