"""This machine's ceilings: measured, kept for a day, the best of several, and never trusted when they make no sense."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from umbel.cost import machine as module
from umbel.cost.cards import named
from umbel.cost.json_cache import cache_folder
from umbel.cost.machine import _copy_rate, _matmul_rate, available_memory, this_machine

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the next measurements will find, FLOP/s; copies are a tenth of it in bytes/s."""
    coming: list[float] = []
    monkeypatch.setattr(module, "_matmul_rate", lambda seconds: coming[0])
    monkeypatch.setattr(module, "_copy_rate", lambda seconds: coming.pop(0) / 10)
    return coming


def kept() -> Path:
    """The one file that is kept of a machine."""
    folder = cache_folder()
    assert folder is not None
    (path,) = folder.glob("machine-*.json")
    return path


def make_old() -> None:
    """Let the kept measurement be of the day before yesterday."""
    values = json.loads(kept().read_text())
    kept().write_text(json.dumps({**values, "at": values["at"] - 2 * module.KEEP_SECONDS}))


def test_this_machine_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """For once, as tests see a machine of fixed rates (conftest)."""
    monkeypatch.setattr(module, "_matmul_rate", _matmul_rate)
    monkeypatch.setattr(module, "_copy_rate", _copy_rate)
    monkeypatch.setattr(module, "SECONDS", 0.01)
    machine = named("this")
    assert 1e8 < machine.matmul_flops < 1e15
    assert 1e7 < machine.memory_rate < 1e14
    assert machine.memory_bytes == pytest.approx(available_memory(), rel=0.5)
    assert machine.source.startswith("measured: ")


def test_it_is_measured_once_a_day(rates: list[float]) -> None:
    rates += [5e10, 4e10, 6e10]
    assert [this_machine().matmul_flops for _ in range(3)] == [5e10] * 3
    make_old()
    assert this_machine().matmul_flops == 5e10  # measured while it was busy: the best counts
    make_old()
    assert (this_machine().matmul_flops, this_machine().memory_rate) == (6e10, 6e9)
    assert rates == []


def test_the_doctor_measures_anew(rates: list[float]) -> None:
    rates += [5e10, 4e10]
    this_machine()
    assert this_machine(remeasure=True).matmul_flops == this_machine().matmul_flops == 4e10


def test_the_free_memory_is_that_of_now(rates: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    rates.append(5e10)
    this_machine()
    monkeypatch.setattr(module, "available_memory", lambda: 123)
    assert this_machine().memory_bytes == 123


@pytest.mark.parametrize("damage", ["", "{", "{}", '{"flops": -1, "bytes": 1, "at": 1}', '{"flops": "x"}'])
@pytest.mark.filterwarnings("ignore:.*ignored, as it cannot be read")
def test_a_damaged_file_is_measured_over(damage: str, rates: list[float]) -> None:
    rates += [5e10, 6e10]
    this_machine()
    kept().write_text(damage)
    assert this_machine().matmul_flops == 6e10
    assert this_machine().matmul_flops == 6e10


def test_nothing_is_kept_where_caches_are_off(rates: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "UMBEL_CACHE", "off")
    rates += [5e10, 6e10]
    assert [this_machine().matmul_flops for _ in range(2)] == [5e10, 6e10]
