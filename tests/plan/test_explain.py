"""Printed plans of canonical workloads, kept as files: they do not change by accident.

After a change that is meant: UMBEL_WRITE_SNAPSHOTS=1 pytest tests/plan/test_explain.py, then read the diff.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from functools import reduce
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.plan.workloads import CANONICAL, MACHINE, SPEC, of, run
from umbel import registry
from umbel.catalog import CATALOG
from umbel.config import CHOICES, EngineConfig, choices
from umbel.cost.known import Known
from umbel.cost.lengths import LengthCurve
from umbel.ir.int4_format import Int4Format
from umbel.ir.plan import Decision, Refusal
from umbel.plan.explain.brief import brief_lines, folded
from umbel.plan.explain.page import plan_page
from umbel.plan.explain.svg import short, ticks
from umbel.plan.explain.text import duration, explain, head_lines, to_json
from umbel.plan.planner import make_plan
from umbel.technique import OPTIONS

SNAPSHOTS = Path(__file__).parent / "snapshots"


@pytest.mark.parametrize("name", CANONICAL)
def test_printed_plan(name: str) -> None:
    text = explain(make_plan(CANONICAL[name](), SPEC, EngineConfig("tiny"), MACHINE))
    path = SNAPSHOTS / f"{name}.txt"
    if os.environ.get("UMBEL_WRITE_SNAPSHOTS"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
    assert max(len(line) for line in text.splitlines()) <= 120


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize("name", CANONICAL)
def test_narrow_lines_break_between_words(name: str, width: int) -> None:
    plan = make_plan(CANONICAL[name](), replace(SPEC, notes=("a long text " * 15,)), EngineConfig("tiny"), MACHINE)
    narrow, wide = explain(plan, width), explain(plan)
    assert max(len(line) for line in narrow.splitlines()) <= width
    assert re.sub(r"[\s│]+", " ", narrow) == re.sub(r"[\s│]+", " ", wide)


@pytest.mark.parametrize("name", CANONICAL)
def test_the_short_form_says_what_it_leaves_out(name: str) -> None:
    plan = make_plan(CANONICAL[name](), SPEC, EngineConfig("tiny"), MACHINE)
    record = to_json(plan)
    lines = brief_lines(record)
    assert len(lines) <= 8 and all(line in explain(plan).splitlines() for line in lines if line.startswith("PLAN"))
    assert f"{len(record['refusals'])} techniques refused or idle" in folded(record)


def test_printed_plan_of_a_lossy_job() -> None:
    config = EngineConfig("tiny", linear="fp8", kv_cache_dtype="fp8", allow_lossy=True)
    spec = replace(SPEC, notes=("config.json: 'foo' is not obeyed", "a long text " * 15))
    text = explain(make_plan(CANONICAL["groups"](), spec, config, MACHINE))
    path = SNAPSHOTS / "lossy.txt"
    if os.environ.get("UMBEL_WRITE_SNAPSHOTS"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
    assert text.splitlines()[0].endswith("    lossy: linear fp8, kv fp8")


VALUES = [(name, value) for name in (*CHOICES, *OPTIONS.values()) if name != "watchers" for value in choices(name)]


@pytest.mark.parametrize(("name", "value"), VALUES)
def test_a_plan_is_exact_when_the_catalogue_says_so(name: str, value: str) -> None:
    """For every value of every option that has a list of them: in the record, in text, as JSON and on the page."""
    config = EngineConfig("tiny", allow_lossy=True, **{name: value})
    rows = [row for row in CATALOG if row.option == (name, value)]
    devices = [device for row in rows if row.can for device in row.can.devices]
    machine = replace(MACHINE, device=devices[0]) if devices else MACHINE
    plan = make_plan(CANONICAL["one_row"](), SPEC, config, machine)
    lossy = [f"{row.family} {row.name}" for row in rows if not row.exact]
    assert (plan.exact, list(plan.lossy)) == (not lossy, lossy)
    record, text = to_json(plan), explain(plan)
    assert (record["exact"], record["lossy"]) == (not lossy, lossy)
    assert text.splitlines()[0].endswith(f"    lossy: {lossy[0]}" if lossy else "    all exact")
    decided = [line for line in text.splitlines() if ": lossy, as asked" in line]
    assert bool(decided) == bool(lossy)
    tile = re.search(r"<div class=\"tile\">answers<b>(\w+)</b>", plan_page(record, text, "t"))
    assert tile is not None and tile[1] == ("lossy" if lossy else "exact")


def test_a_lossy_technique_says_how_it_is_taken() -> None:
    """By name only, and what is said is what to type; weights in 4 bits stay what they are."""
    row = CANONICAL["one_row"]()
    for allowed, more in ((False, " --allow-lossy"), (True, "")):
        plan = make_plan(row, SPEC, EngineConfig("tiny", allow_lossy=allowed), MACHINE)
        said = {r.technique: r.reason for r in plan.refusals if r.reason.startswith("lossy")}
        assert said == {
            f"{family}: {name}": f"lossy: may change answers, so taken only by name: {flag} {name}{more}"
            for family, name, flag in (
                *(("select", row.name, "--technique") for row in registry.rows("select")),
                *(("prompt", row.name, "--technique") for row in registry.rows("prompt")),
                *(("flow", row.name, "--technique") for row in registry.rows("flow")),
                *(("reuse", row.name, "--technique") for row in registry.rows("reuse")),
                *(("forget", row.name, "--technique") for row in registry.rows("forget")),
                ("linear", "int8", "--linear"),
                ("linear", "int4", "--linear"),
                ("linear", "int4-head8", "--linear"),
                ("linear", "fp8", "--linear"),
                ("kv", "fp8", "--kv-cache-dtype"),
                ("kv", "int8", "--kv-cache-dtype"),
            )
        }
    packed = make_plan(row, replace(SPEC, quantization=Int4Format("gptq", 32)), EngineConfig("tiny"), MACHINE)
    said = {r.technique: r.reason for r in packed.refusals if r.technique.startswith("linear")}
    already = "lossy, and the checkpoint's weights are int4 already"
    by_name = "lossy: may change answers, so taken only by name: --linear {} --allow-lossy"
    asked = {f"linear: {name}": by_name.format(name) for name in ("int4", "int4-head8")}
    assert said == {"linear: int8": already, "linear: fp8": already} | asked
    assert packed.exact and packed.decision("linear").reason.startswith("the checkpoint's own")


def test_what_was_asked_and_what_was_derived() -> None:
    row, sixteen = CANONICAL["one_row"](), replace(SPEC, dtype="bfloat16")
    reasons = {
        ("bfloat16", "float32", None): "as asked",
        ("float32", "auto", None): "the model's own",
        ("bfloat16", "auto", None): "this machine has no matmuls in the model's bfloat16",
        (
            "bfloat16",
            "float32",
            "auto",
        ): "this machine has no matmuls in the model's bfloat16",  # a model that is loaded
        ("bfloat16", "bfloat16", "auto"): "the model's own",
        ("bfloat16", "bfloat16", "bfloat16"): "as asked",
    }
    for (own, dtype, asked), reason in reasons.items():
        spec = SPEC if own == "float32" else sixteen
        plan = make_plan(row, spec, EngineConfig("tiny", dtype=dtype), MACHINE, asked_dtype=asked)
        assert plan.decision("dtype").reason == reason, (own, dtype, asked)
    assert plan.decision("page_size").value == 16 and "15 tokens stays empty" in plan.decision("page_size").reason
    plan = make_plan(row, SPEC, EngineConfig("tiny", page_size=8), MACHINE)
    assert (plan.decision("page_size").value, plan.decision("page_size").reason) == (8, "as asked")


def test_two_lossy_techniques_are_both_named() -> None:
    config = EngineConfig("tiny", linear="int8", kv_cache_dtype="fp8", allow_lossy=True)
    plan = make_plan(CANONICAL["one_row"](), SPEC, config, MACHINE)
    assert plan.lossy == ("linear int8", "kv fp8")
    assert head_lines(to_json(plan))[4] == "  answers       lossy: linear int8, kv fp8"


def test_notes_of_the_model_are_shown_with_the_plan() -> None:
    spec = replace(SPEC, notes=tuple(f"note {i} <b>" for i in range(15)))
    plan = make_plan(CANONICAL["one_row"](), spec, EngineConfig("tiny"), MACHINE)
    record, text = to_json(plan), explain(plan)
    assert plan.notes == spec.notes == tuple(record["notes"])
    assert text.count("  note          note ") == 12
    assert "... and 3 more notes (--json lists all)" in text
    assert "note          note 0 <b>" in "\n".join(head_lines(record))
    html = plan_page(record, text, "t")
    assert all(f"<li>note {i} &lt;b&gt;</li>" in html for i in range(15))


KEYS = (
    "exact lossy notes rows samples duplicate_rows twins prompt_tokens computed_prompt_tokens saved_prompt_tokens "
    "output_tokens output_range steps chunk kv_tokens kv_peak_tokens page_size seconds saved_seconds batches decisions "
    "refusals levels tree curve"
)


@pytest.mark.parametrize("name", CANONICAL)
def test_json_is_complete_and_its_tree_adds_up(name: str) -> None:
    plan = make_plan(CANONICAL[name](), SPEC, EngineConfig("tiny"), MACHINE)
    found = json.loads(json.dumps(to_json(plan), allow_nan=False))
    assert list(found) == KEYS.split()
    tops = [line for line in found["tree"] if line["parent"] == -1]
    assert sum(line["rows"] for line in tops) == found["rows"]
    assert sum(line["saved_tokens"] for line in found["tree"]) == found["saved_prompt_tokens"]
    assert sum(line["tokens"] for line in found["tree"]) == found["computed_prompt_tokens"]
    assert all(line["parent"] < i for i, line in enumerate(found["tree"]))
    assert len({len(column) for column in found["curve"].values()}) == 1


FIXED = ("in 9 of 10 cases", "within 3 %")  # what the planner's rules say, not what it found


@pytest.mark.parametrize("name", CANONICAL)
def test_numbers_of_reasons_are_facts(name: str) -> None:
    """Sentences are made from numbers that can be read: what varies from plan to plan is in `facts`, in JSON too."""
    known = Known({"": LengthCurve.of(np.arange(1, 60))})
    plans = [
        make_plan(CANONICAL[name](), SPEC, EngineConfig("tiny", kv_tokens=tokens), MACHINE) for tokens in (None, 900)
    ]
    plans.append(make_plan(CANONICAL[name](), SPEC, EngineConfig("tiny"), MACHINE, known=known))
    for plan in plans:
        for choice in (*plan.decisions, *(r for r in plan.refusals if r.technique.startswith("prefix"))):
            words = reduce(lambda text, fixed: text.replace(fixed, ""), FIXED, re.sub(r"{.*?}", "", choice.why))
            assert not re.search(r"\d{2,}|\d [^r]", words), choice.why
        found = {d["name"]: d for d in json.loads(json.dumps(to_json(plan), allow_nan=False))["decisions"]}
        assert {name: d["facts"] for name, d in found.items()} == {d.name: dict(d.facts) for d in plan.decisions}
        assert all(
            d["reason"] == plan.decision(name).why.format(**d["facts"]) for name, d in found.items() if d["facts"]
        )
        facts = found["prefix"]["facts"]
        assert facts["computed_prompt_tokens"] == plan.decision("prefix").facts["computed_prompt_tokens"]
        assert facts["prompt_tokens"] == plan.estimates.prompt_tokens


def test_a_plan_of_very_many_rows_is_printed_on_a_page_or_two() -> None:
    prompts = [[i % 50, 60 + i % 7, *run(i % 350, 6), i % 900, i] for i in range(4_000)]
    plan = make_plan(of(prompts), SPEC, EngineConfig("tiny"), MACHINE)
    text, record = explain(plan), to_json(plan)
    assert len(text.splitlines()) < 200
    assert len(record["tree"]) <= 160
    assert len(plan_page(record, text, "many")) < 150_000


@pytest.mark.parametrize("name", CANONICAL)
def test_a_page_loads_nothing_and_trusts_no_text(name: str) -> None:
    plan = make_plan(CANONICAL[name](), SPEC, EngineConfig("tiny"), MACHINE)
    hostile = Decision("<b>", "</dl>", "<script>alert(1)</script>", (("<i>", 1.0),))
    plan = replace(plan, decisions=(*plan.decisions, hostile), refusals=(Refusal("<u>", None, "&"),))
    html = plan_page(to_json(plan), explain(plan), "</title><script>")
    assert not re.search(r"(src|href)=|https?://|@import|url\(|<script|<u>", html)
    assert "&lt;script&gt;alert(1)" in html
    pictures = re.findall(r"<svg.*?</svg>", html, re.S)
    assert len(pictures) == 3
    for picture in pictures:
        root = ElementTree.fromstring(picture)
        numbers = [float(v) for part in root for k, v in part.attrib.items() if k in ("x", "y", "width", "height")]
        assert all(0 <= value <= 720 for value in numbers)  # nothing outside the picture


def test_ticks_are_round_and_lie_within() -> None:
    assert ticks(0, 1_000) == [0, 200, 400, 600, 800, 1_000]
    assert ticks(0, 0.037, 4) == pytest.approx([0, 0.01, 0.02, 0.03])
    assert ticks(0, 0) == [0]
    assert [short(v) for v in (0, 0.25, 5, 1_500, 20_000, 3_400_000, 2e9)] == [
        "0",
        "0.25",
        "5",
        "1,500",
        "20k",
        "3.4M",
        "2G",
    ]


def test_json_has_the_names_that_others_rely_on() -> None:
    plan = make_plan(CANONICAL["duplicates"](), SPEC, EngineConfig("tiny"), MACHINE)
    found = json.loads(json.dumps(to_json(plan)))
    assert {"rows", "duplicate_rows", "prompt_tokens", "computed_prompt_tokens", "kv_peak_tokens"} <= set(found)
    assert (found["rows"], found["duplicate_rows"], found["computed_prompt_tokens"]) == (60, 57, 192)
    assert 0 < found["seconds"]["low"] < found["seconds"]["expected"] < found["seconds"]["high"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.01234, "12.3 ms"),
        (0.25, "0.25 s"),
        (-2, "-2 s"),
        (59.94, "59.9 s"),
        (75, "1 min 15 s"),
        (3 * 3600 + 60, "3 h 1 min"),
        (200_000, "2 d 7 h"),
    ],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text
