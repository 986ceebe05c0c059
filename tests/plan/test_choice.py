"""Which technique a plan takes for a limit of damage, and why not the others, by measurements that are made up here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from umbel.cli.main import main
from umbel.cost.damage import DamageFile, MeasuredTechnique, TaskDamage
from umbel.cost.machine import machine_name, this_machine
from umbel.demo import path
from umbel.models.digest import hash_model
from umbel.plan.choice import DamageAim, LossyChoice, choose_lossy, lossy_rows, seconds_share

HERE = "this machine"
AIM = DamageAim(limit=0.01, prompt=200.0, longest=300, seconds=10.0, model="demo", dtype="float32", machine=HERE)


def task(name: str, tokens: float, lost: int, seconds: float, right: int = 200) -> TaskDamage:
    """A task of which dense has `right` rows right in ten seconds."""
    return TaskDamage(name, right, tokens, 4.0, right, right, right - lost, lost, lost, 1.0, 0.01, 0.5, 10.0, seconds)


def measured(option: str, value: str, *tasks: TaskDamage, machine: str = HERE) -> MeasuredTechnique:
    return MeasuredTechnique(option, value, "float32", machine, 1, 2, 1, 2, 1.0, 1.0, None, None, tasks)


def pages(budget: float, lost: int, seconds: float) -> MeasuredTechnique:
    """Slower than dense where prompts are short; faster, and worse, where they are long."""
    return measured(
        "technique", f"pages:budget={budget:g}", task("short", 100, 0, 11), task("long", 2000, lost, seconds)
    )


INT8 = measured("linear", "int8", task("short", 100, 1, 6), task("long", 2000, 2, 9))
INT4 = measured("linear", "int4", task("short", 100, 30, 4), task("long", 2000, 40, 5))
KV8 = measured("kv_cache_dtype", "int8", task("short", 100, 0, 9.5), task("long", 2000, 0, 8))
KNOWN = (INT8, INT4, KV8, pages(0.5, 1, 4), pages(0.1, 90, 2))


def chosen(aim: DamageAim = AIM, known: tuple[MeasuredTechnique, ...] = KNOWN) -> LossyChoice:
    return choose_lossy(known, lossy_rows(), aim)


def reasons(choice: LossyChoice) -> dict[str, str]:
    return {refusal.technique: refusal.reason for refusal in choice.refusals}


def test_the_fastest_within_the_limit_is_taken_for_the_prompts_of_the_job() -> None:
    """For short ones products in int8, for long ones pages: what loses more is faster, and refused."""
    short, long = chosen(), chosen(replace(AIM, prompt=1900.0, longest=2100))
    assert short.chosen == INT8 and long.chosen == pages(0.5, 1, 4)
    assert short.decision.value == "linear int8" and long.decision.value == "pages:budget=0.5"
    assert "the fastest of 5 measured that loses at most 1.00%" in short.decision.reason
    assert "at worst 1.00% of long (2 of 200 right answers)" in short.decision.reason
    assert long.decision.facts["seconds_share"] == pytest.approx(0.41, abs=0.01)


def test_each_of_the_others_is_refused_by_name_with_the_reason() -> None:
    short = reasons(chosen())
    assert short["linear: int4"] == "loses 20.00% of long (40 of 200 right answers), more than 1.00%"
    assert short["select: pages:budget=0.1"].startswith("loses 45.00% of long (90 of 200")
    shortest = reasons(chosen(replace(AIM, prompt=100.0)))
    assert shortest["select: pages:budget=0.5"].startswith("saves nothing: 1.10 times dense's seconds")
    assert short["kv: int8"] == "within 1.00%, and slower than linear int8"
    assert short["linear: fp8"] == "not measured with this model: umbel lab -m demo --techniques linear=fp8"
    assert short["select: vertical-slash"].startswith("not measured")
    assert "linear: int8" not in short
    (slower,) = (one for one in chosen().refusals if one.technique == "kv: int8")
    assert slower.seconds == pytest.approx((seconds_share(KV8, 200) - seconds_share(INT8, 200)) * 10)


def test_a_wider_limit_takes_what_is_faster_and_a_narrower_one_what_loses_nothing() -> None:
    long = replace(AIM, prompt=1900.0, longest=2100)
    assert chosen(replace(long, limit=0.5)).chosen == pages(0.1, 90, 2)
    assert chosen(replace(AIM, limit=0.005, prompt=200.0), (INT8, KV8)).chosen == KV8


def test_nothing_is_taken_where_nothing_fits() -> None:
    none = chosen(known=(INT4, pages(0.1, 90, 2)))
    assert none.chosen is None and none.decision.value == "none"
    assert "2 measured of demo" in none.decision.reason
    unknown = chosen(known=())
    assert unknown.chosen is None and "none was measured: umbel lab -m demo" in unknown.decision.reason
    assert len(unknown.refusals) == len(lossy_rows())


def test_files_may_be_called_anything() -> None:
    """Braces stand for facts in reasons, and here for themselves."""
    odd = measured("linear", "int8", task("{a}.jsonl", 200, 1, 5))
    assert "at worst 0.50% of {a}.jsonl" in chosen(known=(odd,)).decision.reason
    lost = measured("linear", "int8", task("{0}", 200, 90, 5))
    assert "loses 45.00% of {0}" in reasons(chosen(known=(lost,)))["linear: int8"]


def test_what_was_measured_elsewhere_or_cannot_tell_is_not_taken() -> None:
    elsewhere = measured("linear", "int8", task("short", 100, 0, 5), machine="another")
    few = measured("linear", "int8", task("short", 200, 0, 5, right=60))
    other = replace(INT8, dtype="bfloat16")
    for one, why in (
        (elsewhere, "measured on another, not on this machine"),
        (few, "measured on 60 right answers a task at most, which cannot tell 1.00%: 100 can"),
        (other, "measured in bfloat16, and this job computes in float32"),
    ):
        choice = chosen(known=(one,))
        assert choice.chosen is None and reasons(choice)["linear: int8"] == why
    longer = reasons(chosen(replace(AIM, longest=3100)))
    assert longer["linear: int8"] == "measured on prompts of 2,000 tokens at most, and this job has one of 3,100"


def test_a_loss_counts_though_other_answers_became_right() -> None:
    """Three rows are lost and three others won: as many are right as before, and three of a hundred answers wrong."""
    luck = replace(task("short", 200, 3, 5, right=100), right=100)
    assert chosen(known=(measured("linear", "int8", luck),)).chosen is None


def test_seconds_are_between_those_of_the_nearest_lengths() -> None:
    one = measured("linear", "int8", task("a", 100, 0, 5), task("b", 110, 0, 7), task("c", 1600, 0, 9))
    assert seconds_share(one, 10) == seconds_share(one, 105) == pytest.approx(0.6)
    assert seconds_share(one, 410) == pytest.approx(0.75, abs=0.01)  # half way, in powers of two
    assert seconds_share(one, 5000) == pytest.approx(0.9)


def test_what_is_kept_of_a_model_is_found_by_its_files(cache: Path) -> None:
    file = DamageFile.of({"config.json": "1", "model.safetensors": "2"})
    assert file.load() == ()
    file.learn([INT8, KV8])
    again = replace(INT8, tasks=(task("short", 100, 7, 3),))
    file.learn([again])
    assert file.load() == (again.with_tasks(INT8.tasks), KV8)
    assert [one.lost for one in file.load()[0].tasks] == [2, 7]  # of `long`, and `short` as measured last
    assert DamageFile.of({"config.json": "1", "model.safetensors": "3"}).load() == ()
    file.forget()
    assert file.load() == () and cache.is_dir()


@pytest.fixture
def known(cache: Path) -> None:
    """The lab has measured the demo model on this machine."""
    here = machine_name(this_machine())
    DamageFile.of(hash_model(path())).learn([replace(one, machine=here) for one in KNOWN])


def plan_text(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["plan", *words, "-m", "demo", "--dtype", "float32", "--device", "cpu"]) == 0
    return " ".join(capsys.readouterr().out.split())


def rows(tmp_path: Path, name: str, words: int) -> str:
    file = tmp_path / name
    file.write_text("".join(f'{{"prompt": "{"lamp chair " * words}{i}", "max_tokens": 8}}\n' for i in range(30)))
    return str(file)


@pytest.mark.usefixtures("known")
def test_plans_of_two_jobs_say_what_they_take_and_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    limit = ("--allow-lossy", "--max-damage", "1%")
    short = plan_text(capsys, rows(tmp_path, "short.jsonl", 40), *limit)
    long = plan_text(capsys, rows(tmp_path, "long.jsonl", 950), *limit, "-v")
    assert "lossy: linear int8" in short and "lossy linear int8: the fastest of 5 measured" in short
    assert "lossy: select pages" in long and "lossy pages:budget=0.5: the fastest of 5 measured" in long
    assert "technique pages:budget=0.5: lossy, as asked" in long and "keys read" in long
    assert "int4: loses 20.00% of long" in long and "taken only by name" not in long
    drafted = plan_text(capsys, rows(tmp_path, "short.jsonl", 40), *limit, "-v", "--speculate", "model:draft")
    assert "spec-prefill: not measured" in drafted and "spec-prefill" not in long  # which takes a draft model
    exact = plan_text(capsys, rows(tmp_path, "short.jsonl", 40), "--allow-lossy", "--max-damage", "0.1%")
    assert "all exact" in exact and "lossy none: no technique" in exact


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--max-damage", "1%"), "--allow-lossy says that they may"),
        (("--max-damage", "none", "--allow-lossy"), "must be a share of right answers"),
        (("--max-damage", "0", "--allow-lossy"), "must be a share of right answers"),
        (("--max-damage", "1%", "--allow-lossy", "--linear", "int8"), "chooses by itself: leave linear='int8' out"),
    ],
)
def test_limits_that_cannot_be_are_refused(
    words: tuple[str, ...], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", rows(tmp_path, "rows.jsonl", 4), "-m", "demo", *words]) == 2
    assert why in capsys.readouterr().err


@pytest.mark.usefixtures("known")
def test_a_run_takes_what_the_plan_takes_and_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = rows(tmp_path, "short.jsonl", 20), str(tmp_path / "out.jsonl")
    options = ("-m", "demo", "--dtype", "float32", "--device", "cpu", "--temperature", "0", "--max-tokens", "2")
    assert main(["run", file, "-o", out, *options, "--allow-lossy", "--max-damage", "1%"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "lossy: linear int8: the fastest of 5 measured" in said
    assert main(["report", out]) == 0
    assert "lossy: linear int8" in capsys.readouterr().out
