"""Histories on disk: found again where they belong, unharmed by damage, by many processes at once, and by no disk."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from umbel.cost import json_cache
from umbel.cost.cards import named
from umbel.cost.history import MOST_ANSWERS, History
from umbel.cost.json_cache import cache_folder
from umbel.cost.lengths import LengthCurve
from umbel.cost.load import Load
from umbel.cost.machine import Machine, machine_name, this_machine, this_name
from umbel.ir.spec import ModelSpec

SPEC = ModelSpec("llama", 4000, 256, 6, 4, 2, 64, 640, 4096, 1e-5, 1e4)
PRIOR = np.full(8, 1e-4)
HERE = Machine(
    "this", 1e11, 1e11, 1e10, 10**9, 0.4, 1e-3, 1e-4, (512,), ("float32",), "made up", identity="a processor"
)


@pytest.fixture
def history(cache: Path) -> Iterator[History]:
    return History.of(SPEC, Path("model"), "float32", HERE, 1)


def steps(n: int = 10) -> tuple[Load, np.ndarray]:
    ones = np.ones(n)
    return Load(ones, 8 * ones, 8 * ones, 800 * ones, 800 * ones), 0.05 * ones


def curve(*lengths: int) -> LengthCurve:
    distinct, counts = np.unique(lengths, return_counts=True)
    return LengthCurve(distinct, counts.astype(float))


def test_nothing_is_known_at_first(history: History) -> None:
    known = history.load()
    assert known.calibration is None and known.lengths == {}


def test_steps_are_learned_and_found_again(history: History) -> None:
    history.learn_steps(*steps(), PRIOR)
    history.learn_steps(*steps(), PRIOR)
    found = History.of(SPEC, Path("elsewhere"), "float32", HERE, 1).load().calibration  # seconds belong to the shape
    assert found is not None and (found.steps, found.jobs) == (20, 2)
    assert found.each(Load.one(8, 8, 800, 800))[0] == pytest.approx(0.05, rel=0.05)
    history.learn_steps(*steps(), PRIOR, restart=True)
    restart = history.load().calibration
    assert restart is not None and restart.jobs == 1


def test_too_little_teaches_nothing(history: History, cache: Path) -> None:
    history.learn_steps(*steps(2), PRIOR)
    load, seconds = steps()
    history.learn_steps(load, seconds / 1000, PRIOR)
    assert not cache.exists()
    history.learn_steps(load, seconds / 1000, PRIOR, restart=True)  # unless it was timed for its own sake
    assert history.load().calibration is not None


@pytest.mark.parametrize(
    "other",
    [
        (replace(SPEC, n_layers=7), "float32", HERE, 1),
        (SPEC, "bfloat16", HERE, 1),
        (SPEC, "float32", named("h200"), 1),
        (SPEC, "float32", HERE, 2),
    ],
)
def test_steps_elsewhere_are_not_mixed_up(history: History, other: tuple[ModelSpec, str, Machine, int]) -> None:
    history.learn_steps(*steps(), PRIOR)
    spec, dtype, machine, threads = other
    assert History.of(spec, Path("model"), dtype, machine, threads).load().calibration is None


def test_lengths_belong_to_the_model(history: History) -> None:
    history.learn_lengths({"": curve(3, 3, 9), "a": curve(5)})
    history.learn_lengths({"": curve(9, 12), "b": curve(1)})
    found = History.of(SPEC, Path("model"), "bfloat16", named("h200"), 8).load().lengths
    assert found[""].lengths.tolist() == [3, 9, 12] and found[""].counts.tolist() == [2, 2, 1]
    assert found["a"].lengths.tolist() == [5] and found["b"].lengths.tolist() == [1]
    assert not History.of(SPEC, Path("other"), "float32", HERE, 1).load().lengths


def test_lengths_stay_few(history: History) -> None:
    for i in range(3):
        history.learn_lengths({f"{i}-{j}": curve(4) for j in range(100)})
    found = history.load().lengths
    assert len(found) == 256 and "2-0" in found and "0-0" not in found
    many = LengthCurve(np.arange(1, 3), np.full(2, MOST_ANSWERS))
    history.learn_lengths({"": many})
    history.learn_lengths({"": curve(7, 7)})
    assert history.load().lengths[""].counts.sum() == pytest.approx(MOST_ANSWERS)
    assert history.load().lengths[""].counts[-1] == 2


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b'{"gram": 1}', b"\xff\xfe", b'{"templates": {"": {"lengths": [2]}}}']
)
def test_damaged_files_are_ignored_and_replaced(history: History, damage: bytes) -> None:
    history.learn_steps(*steps(), PRIOR)
    history.learn_lengths({"": curve(3)})
    assert history.steps and history.lengths
    for path in (history.steps, history.lengths):
        path.write_bytes(damage)
    with pytest.warns(UserWarning, match="ignored, as it cannot be read") as caught:
        known = history.load()
    assert len(caught) == 2 and known.calibration is None and not known.lengths
    with pytest.warns(UserWarning, match="ignored"):
        history.learn_steps(*steps(), PRIOR)
    assert history.steps.exists() and json.loads(history.steps.read_text())["steps"] == 10


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_where_nothing_may_be_written_nothing_is_said(
    history: History, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(Path, "mkdir", refuse)
    history.learn_steps(*steps(), PRIOR)
    assert history.load().calibration is None


def test_a_folder_that_is_a_file_costs_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("UMBEL_CACHE", str(tmp_path / "file"))
    history = History.of(SPEC, Path("model"), "float32", HERE)
    with pytest.warns(UserWarning, match="not saved"):
        history.learn_steps(*steps(), PRIOR)


def test_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UMBEL_CACHE", "off")
    assert cache_folder() is None
    history = History.of(SPEC, Path("model"), "float32", HERE)
    history.learn_steps(*steps(), PRIOR)
    history.learn_lengths({"": curve(3)})
    assert history.load().calibration is None and history.steps is None


def test_where_it_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("UMBEL_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "umbel"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "umbel"


def test_machines_have_different_names() -> None:
    assert machine_name(named("h200")) == "h200"
    assert machine_name(HERE) == "a processor"
    assert machine_name(this_machine()) == this_name() != "this"


WRITER = """
import sys
from pathlib import Path
from tests.cost.test_history import HERE, PRIOR, SPEC, curve, steps
from umbel.cost.history import History
history = History.of(SPEC, Path("model"), "float32", HERE, 1)
for i in range(20):
    history.learn_steps(*steps(), PRIOR)
    history.learn_lengths({"": curve(1 + int(sys.argv[1]))})
"""


def test_processes_at_once_lose_nothing(history: History) -> None:
    root = Path(__file__).parents[2]
    running = [subprocess.Popen([sys.executable, "-c", WRITER, str(i)], cwd=root) for i in range(3)]
    assert [process.wait(600) for process in running] == [0, 0, 0]
    known = history.load()
    assert known.calibration is not None and known.calibration.jobs == 60
    assert known.lengths[""].counts.tolist() == [20, 20, 20]
    assert history.steps is not None and not list(history.steps.parent.glob("*.part"))


def test_the_folder_does_not_grow_without_end(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    assert history.steps is not None
    folder = history.steps.parent
    folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(json_cache, "MOST_FILES", 5)
    names = [f"steps-{i:020x}" for i in range(9)]
    for at, name in enumerate(names):
        (folder / f"{name}.json").write_text("{}")
        os.utime(folder / f"{name}.json", (at, at))
        (folder / f"{name}.lock").touch()  # as earlier versions left them
    others = ["notes.json", "steps-of-mine.json", "x.lock"]
    for name in (*others, f"{names[0]}.json.77.part"):
        (folder / name).write_text("{}")
        os.utime(folder / name, (0, 0))
    history.learn_steps(*steps(), PRIOR)
    (folder / f"{names[1]}.json.78.part").write_text("being written where locks do not work")
    history.learn_steps(*steps(), PRIOR)
    others.append(f"{names[1]}.json.78.part")
    kept = [*(f"{name}.json" for name in names[-4:]), history.steps.name, json_cache.LOCK]
    assert sorted(entry.name for entry in folder.iterdir()) == sorted([*kept, *others])
    assert history.load().calibration is not None
