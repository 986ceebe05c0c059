"""Techniques of other packages come through the same door as the built-in ones; a broken one harms no other."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from tests.house.source import ROOT
from tests.packages import ROWS, TOYS, installed, write_package
from tests.plan.workloads import MACHINE, SPEC, groups, of
from umbel import registry
from umbel.api import LLM
from umbel.attention.capabilities import Case, choose
from umbel.cli.checkup import added_techniques
from umbel.config import EngineConfig, choices
from umbel.errors import UsageError
from umbel.ir.params import SamplingParams
from umbel.plan.planner import make_plan

ROW = 'from umbel.technique import Technique\nROW = Technique("admission", "{}", {}, "{}", why_not="idle")\n'


@pytest.fixture
def toys(tmp_path: Path) -> Iterator[None]:
    write_package(tmp_path, "umbel-toys", ROWS)
    with installed(tmp_path, TOYS):
        yield


def test_a_name_that_is_not_known_is_named_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"admission='headrom': must be one of .* \(did you mean 'headroom'\?\)"):
        registry.load("admission", "headrom")
    with pytest.raises(UsageError, match=r"admission='few': must be one of past-future, headroom, conservative, agg"):
        EngineConfig("demo", admission="few")


@pytest.mark.usefixtures("toys")
def test_a_technique_of_another_package_is_a_choice_like_any_other() -> None:
    assert registry.names("admission")[-1] == choices("admission")[-1] == "few"
    assert EngineConfig("demo", admission="few").admission == "few"
    with pytest.raises(UsageError, match=r"admission='fwe': must be one of .*, few \(did you mean 'few'\?\)"):
        EngineConfig("demo", admission="fwe")


def refusals(**settings: object) -> dict[str, tuple[float | None, str]]:
    """What a plan in a tight pool says of rules that it does not take."""
    config = EngineConfig("tiny", kv_tokens=1_000, **settings)
    plan = make_plan(of(groups(4, 12, 64, 8), max_tokens=60), SPEC, config, MACHINE)
    return {r.technique: (r.seconds, r.reason) for r in plan.refusals if r.technique.startswith("admission")}


@pytest.mark.usefixtures("toys")
def test_a_plan_takes_it_by_name_and_prices_it_otherwise() -> None:
    seconds, reason = refusals()["admission: few"]
    assert seconds and reason == "runs twelve samples at a time, whatever the pool holds"
    config = EngineConfig("tiny", kv_tokens=1_000, admission="few")
    plan = make_plan(of(groups(4, 12, 64, 8), max_tokens=60), SPEC, config, MACHINE)
    assert plan.decision("admission").reason == "a row starts while fewer than twelve samples run"
    assert "admission: few" not in {r.technique for r in plan.refusals}
    assert plan.estimates.kv_peak_tokens < 1_000 and plan.exact
    assert added_techniques()["admission: few"] == "ready"


def test_the_command_line_shows_it(tmp_path: Path) -> None:
    """In another process, as users have it: help, a plan, a misspelt name."""
    write_package(tmp_path, "umbel-toys", ROWS)
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n' * 3)
    code = f"import sys\nsys.path[:0] = {[str(tmp_path), str(TOYS)]}\nfrom umbel.cli.main import main\n"
    code += "for line in ('--help', 'in.jsonl -m demo --admission few --kv-tokens 48 --max-tokens 30 -v',"
    code += " 'in.jsonl -m demo --admission fwe'):\n    main(['plan', *line.split()])\n"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True)
    assert "conservative, aggressive or few" in " ".join(done.stdout.split())
    assert "few: a row starts while fewer than twelve samples run" in " ".join(done.stdout.split())
    assert "did you mean 'few'?" in done.stderr, done.stderr


BROKEN = {
    "no module": ("admission.gone", "gone:ROW", "", "No module named 'gone'"),
    "no row": ("admission.gone", "gone:ROW", "x = 1", "no attribute 'ROW'"),
    "an error": ("admission.gone", "gone:ROW", "1 / 0", "ZeroDivisionError"),
    "no technique": ("admission.gone", "gone:ROW", "ROW = 5", "gone:ROW is a int"),
    "another name": ("admission.gone", "gone:ROW", ROW.format("fled", True, "gone:Rule"), "the row of admission.fled"),
    "no class": ("admission.gone", "gone:ROW", ROW.format("gone", True, "gone:Rule"), "no attribute 'Rule'"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_one_says_which_package_and_harms_nothing_else(case: str, tmp_path: Path) -> None:
    entry, value, text, why = BROKEN[case]
    write_package(tmp_path, "bad-rules", {entry: value}, {"gone": text} if text else {})
    with installed(tmp_path):
        told = r"technique 'admission.gone' of the package bad-rules 1.0 cannot be used: .*" + why
        with pytest.raises(UsageError, match=told):
            EngineConfig("demo", admission="gone")
            registry.kind("admission", "gone")
        assert EngineConfig("demo", admission="headroom").lossy == ()
        seconds, reason = refusals()["admission: gone"]
        assert seconds is None and why in reason
        assert "aggressive" in str(choices("admission"))


def test_a_rule_that_fails_in_a_walk_is_not_priced(tmp_path: Path) -> None:
    text = ROW.format("gone", True, "gone:Rule") + "class Rule:\n    retries = False\n"
    write_package(tmp_path, "bad-rules", {"admission.gone": "gone:ROW"}, {"gone": text})
    with installed(tmp_path):
        seconds, reason = refusals()["admission: gone"]
    assert seconds is None and reason.startswith("cannot be priced: AttributeError")


def test_names_that_are_taken_and_families_that_are_closed(tmp_path: Path) -> None:
    """The built-in technique stays what it is; two packages of one name must be told apart."""
    first, second = tmp_path / "1", tmp_path / "2"
    first.mkdir(), second.mkdir()
    row = ROW.format("twin", True, "twin:Rule")
    rows = {"admission.twin": "twin:ROW", "admission.headroom": "twin:HEADROOM", "prefix.short": "twin:ROW", "odd": "x"}
    write_package(
        first, "one", rows, {"twin": row + 'HEADROOM = Technique("admission", "headroom", True, "twin:Rule")'}
    )
    write_package(second, "two", {"admission.twin": "twin:ROW"})
    with installed(first, second):
        assert registry.find("admission", "headroom").loads.startswith("umbel.")
        assert registry.names("admission").count("headroom") == registry.names("admission").count("twin") == 1
        with pytest.raises(UsageError, match=r"admission='twin': one 1.0 and two 1.0 each bring one"):
            EngineConfig("demo", admission="twin")
        with pytest.raises(UsageError, match="prefix='short': must be one of"):
            EngineConfig("demo", prefix="short")
        faults = added_techniques()
        assert "a built-in technique's" in faults["admission: headroom"] and faults.keys() >= {"prefix: short", "odd"}


def test_one_that_may_change_answers_has_to_be_allowed(tmp_path: Path) -> None:
    write_package(tmp_path, "wild", {"admission.wild": "wild:ROW"}, {"wild": ROW.format("wild", False, "wild:Rule")})
    with installed(tmp_path):
        with pytest.raises(UsageError, match=r"admission='wild' may change answers"):
            EngineConfig("demo", admission="wild")
        assert EngineConfig("demo", admission="wild", allow_lossy=True).lossy == ("admission='wild'",)


def test_what_is_built_in_is_found_without_a_look_at_other_packages() -> None:
    """Looking at the metadata of all packages takes as long as reading a small job."""
    code = "from umbel.config import EngineConfig\nEngineConfig('demo', admission='headroom', prefix='none')\n"
    code += "from umbel import registry\nassert registry.installed.cache_info().misses == 0"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.usefixtures("toys")
def test_an_attention_backend_of_another_package_gives_the_same_answers() -> None:
    """Taken by name only, and refused by name for what its row says that it cannot do."""
    prompts, params = ["The sea", "The sea is", "A tree"], SamplingParams(max_tokens=8, temperature=0.0)
    usual, plain = (
        [out.outputs[0].token_ids for out in LLM("demo", dtype="float32", **how).generate(prompts, params)]
        for how in ({}, {"attention_backend": "plain"})
    )
    assert usual == plain
    assert choose(Case("cpu", "float32", (64,))).name != "plain"
    with pytest.raises(UsageError, match=r"attention_backend='plain' cannot serve this model here: .*float32"):
        LLM("demo", dtype="bfloat16", attention_backend="plain")


@pytest.mark.usefixtures("toys")
def test_a_watcher_of_another_package_is_there_where_it_is_asked_for() -> None:
    """And it is part of what a job's answers depend on."""
    params = [SamplingParams(max_tokens=12, temperature=0.0, ignore_eos=True, seed=seed) for seed in (None, 3)]
    usual, watched = (
        [out.outputs[0].token_ids for out in LLM("demo", dtype="float32", **how).generate(["The sea"] * 2, params)]
        for how in ({}, {"watchers": ("alternating",)})
    )
    assert usual[0] == usual[1] == watched[0] != watched[1]
    assert all((one + other) % 2 for one, other in pairwise(watched[1]))
    assert EngineConfig("demo", watchers=("alternating",)).identity["watchers"] == "alternating"
    assert "watchers" not in EngineConfig("demo").identity
    with pytest.raises(UsageError, match=r"watchers='alternate': must be one of alternating \(did you mean 'alternat"):
        EngineConfig("demo", watchers=("alternate",))


@pytest.mark.usefixtures("toys")
def test_a_keep_rule_of_another_package_changes_no_answer() -> None:
    """Two groups in turn, in a pool that holds few prompts: which of them is there is all that differs."""
    prompts, params = [f"{'The sea' if i % 2 else 'A tree'}{' and' * 40}" for i in range(6)], SamplingParams(seed=1)
    params = replace(params, max_tokens=4)
    usual, walk = (LLM("demo", dtype="float32", kv_tokens=160, keep=keep) for keep in ("auto", "walk"))
    assert [o.outputs for o in usual.generate(prompts, params)] == [o.outputs for o in walk.generate(prompts, params)]
    refused = {r.technique: r.reason for r in usual.plan(prompts, params).refusals}
    assert "first prompts of the walk" in refused["keep: walk"]
    assert "keep: walk" not in {r.technique for r in walk.plan(prompts, params).refusals}
    with pytest.raises(UsageError, match=r"keep='wlak': must be one of auto, last-reader, lru, walk \(did you mean"):
        EngineConfig("demo", keep="wlak")


def test_without_packages_there_is_no_watcher_to_ask_for() -> None:
    with pytest.raises(UsageError, match=r"watchers='endings': must be one of none, as no package brings one"):
        EngineConfig("demo", watchers=("endings",))


@pytest.mark.nightly
def test_the_conformance_tests_run_over_techniques_of_other_packages(tmp_path: Path) -> None:
    """A new row is tested without a new test."""
    write_package(tmp_path, "umbel-toys", ROWS)
    path = os.pathsep.join([str(tmp_path), str(TOYS), *filter(None, [os.environ.get("PYTHONPATH")])])
    names = {entry.partition(".")[2] for entry in ROWS}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-v",
        "tests/conformance",
        "-k",
        " or ".join(names),
    ]
    run = partial(subprocess.run, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    done = run(command, timeout=600, check=False)
    assert done.returncode == 0, done.stdout
    assert all(f"[{name}" in done.stdout or f"-{name}" in done.stdout for name in names)
