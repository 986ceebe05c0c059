"""The schedule: everyone in turn and never two at once, fresh content each round, failures named and passed over."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.bench import fakes
from umbel.bench import fleet
from umbel.bench.engines import Base, Contestant
from umbel.bench.record import Record
from umbel.bench.rounds import BenchRounds, Schedule, answers_path


@pytest.fixture(autouse=True)
def ceilings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("umbel.bench.rounds.CEILINGS", Base(fakes.SCRIPT, "fake", own_python=False))


def bench(folder: Path, engines: Sequence[Contestant], names: Sequence[str] = ("W1", "W3"), **more: Any) -> Record:
    cases = [fakes.case(name) for name in names]
    record = fakes.record(cases, folder / "bench.json")
    BenchRounds(cases, engines, fakes.setup(folder), record, lambda line: None).run(Schedule(**{"repeats": 2, **more}))
    return record


def test_everyone_in_turn(tmp_path: Path) -> None:
    diary = str(tmp_path / "diary")
    engines = [fakes.engine("a", diary=diary, seconds=1.0), fakes.engine("b", diary=diary, seconds=3.0)]
    record = bench(tmp_path, engines)
    told = [(m["round"], m["case"], m["engine"]) for m in record.measurements]
    assert told == [
        (0, "W1", "a"), (0, "W1", "b"), (0, "W3", "a"), (0, "W3", "b"),
        (1, "W1", "b"), (1, "W1", "a"), (1, "W3", "b"), (1, "W3", "a"),
    ]  # fmt: skip
    assert [m["seed"] for m in record.measurements] == [101] * 4 + [102] * 4
    spans = sorted((e["begin"], e["end"]) for e in diary_of(diary) if e["ask"]["do"] == "run")
    assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))
    assert json.loads((tmp_path / "bench.json").read_text())["measurements"] == record.measurements


def test_calibrations_stand_around_every_block(tmp_path: Path) -> None:
    record = bench(tmp_path, [fakes.engine("a"), fakes.engine("b")])
    assert len(record.calibrations) == 2 * (2 + 1)
    assert [m["calibration"] for m in record.measurements] == [0, 0, 1, 1, 3, 3, 4, 4]


def test_content_is_new_each_round_and_warm_ups_have_their_own(tmp_path: Path) -> None:
    diary = str(tmp_path / "diary")
    bench(tmp_path, [fakes.engine("a", diary=diary)], ["W1"])
    files = [entry["ask"]["rows"] for entry in diary_of(diary) if entry["ask"]["do"] == "run"]
    assert len(files) == len(set(files)) == 3
    assert len({Path(file).read_text() for file in files}) == 3


def test_variants_share_a_process_and_sort_when_told(tmp_path: Path) -> None:
    diary = str(tmp_path / "diary")
    bench(tmp_path, [fakes.engine("a", diary=diary), fakes.engine("a-sorted", diary=diary)], ["W1"], repeats=1)
    asked = [entry["ask"] for entry in diary_of(diary)]
    assert [ask["do"] for ask in asked].count("load") == 1
    assert [ask["sort"] for ask in asked if ask["do"] == "run"] == [False, False, True]


@pytest.mark.parametrize("fault", ["fail", "die", "lose"])
def test_failures_are_named_and_the_rest_goes_on(tmp_path: Path, fault: str) -> None:
    record = bench(tmp_path, [fakes.engine("bad", **{fault: True}), fakes.engine("good")])
    assert {m["engine"] for m in record.measurements} == {"good"}
    assert len(record.measurements) == 4
    assert {f["engine"] for f in record.failures} == {"bad"}
    assert {f["case"] for f in record.failures} <= {None, "W1", "W3"}


def test_an_engine_without_interpreter_is_named(tmp_path: Path) -> None:
    missing = Contestant("gone", "gone", Base(fakes.SCRIPT, "fake"), {})
    record = bench(tmp_path, [missing, fakes.engine("good")])
    assert [f["engine"] for f in record.failures] == ["gone"]
    assert "--peer gone=PYTHON" in record.failures[0]["why"]
    assert len(record.measurements) == 4


def test_patience_ends(tmp_path: Path) -> None:
    record = bench(
        tmp_path, [fakes.engine("slow", seconds=100.0), fakes.engine("fast")], ["W1"], patience=50.0, repeats=3
    )
    assert [m["engine"] for m in record.measurements].count("slow") == 1
    assert [m["engine"] for m in record.measurements].count("fast") == 3


def test_a_full_memory_ends_the_quickest_to_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for two processes: each new one ends another, and then engines take whole rounds in turn."""
    here: list[BenchRounds] = []
    monkeypatch.setattr(fleet, "available_memory", lambda: 1 << 50 if len(here[0].fleet.running) < 2 else 0)
    cases = [fakes.case("W1"), fakes.case("W3")]
    record = fakes.record(cases)
    diary = str(tmp_path / "diary")
    engines = [fakes.engine(name, diary=diary) for name in "abc"]
    here.append(BenchRounds(cases, engines, fakes.setup(tmp_path), record, lambda line: None))
    here[0].run(Schedule(repeats=1))
    assert [(m["engine"], m["case"]) for m in record.measurements] == [(e, c) for e in "abc" for c in ("W1", "W3")]
    starts = sum(len(facts["load_s"]) for facts in here[0].fleet.facts.values())
    runs = [entry["ask"] for entry in diary_of(diary) if entry["ask"]["do"] == "run"]
    assert starts > 3
    assert len(runs) == 3 * 2 + 3 * 2 + (starts - 3)  # measured, warm-ups, and the smallest workload once more


def test_slow_engines_warm_up_with_less(tmp_path: Path) -> None:
    diary = str(tmp_path / "diary")
    cases = [fakes.case("W1", rows=40)]
    record = fakes.record(cases)
    engines = [fakes.engine("a", diary=diary, warm_every=16)]
    BenchRounds(cases, engines, fakes.setup(tmp_path), record, lambda line: None).run(Schedule(repeats=0))
    (warm,) = [entry["ask"] for entry in diary_of(diary) if entry["ask"]["do"] == "run"]
    assert len(Path(warm["rows"]).read_text().splitlines()) == 3


def test_first_answers_are_kept(tmp_path: Path) -> None:
    bench(tmp_path, [fakes.engine("a")])
    assert answers_path(tmp_path, "W1", "a", 0).exists()
    assert not answers_path(tmp_path, "W1", "a", 1).exists()


def diary_of(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]
