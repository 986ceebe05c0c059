"""What a job takes beside its steps: a rule before the first load, then what loads took."""

from __future__ import annotations

from pathlib import Path

import pytest

from umbel.config import EngineConfig
from umbel.cost.startup import IMPORT_SECONDS, KEPT, Loads, reading

pytestmark = pytest.mark.usefixtures("cache")
CONFIG = EngineConfig("x")


def test_loads_are_expected_to_take_what_they_took(tmp_path: Path) -> None:
    loads = Loads.of(tmp_path, CONFIG)
    rule = loads.expect(3 * 10**9)
    assert rule.expected == IMPORT_SECONDS + 3 and rule.low < rule.expected / 2 < 2 * rule.expected < rule.high
    for seconds in (4.0, 9.0, 5.0):
        loads.learn(seconds)
    known = Loads.of(tmp_path, CONFIG).expect(3 * 10**9)
    assert known.expected == 5.0 and known.low < 4.0 and 9.0 < known.high < rule.high


def test_what_is_long_ago_is_forgotten(tmp_path: Path) -> None:
    loads = Loads.of(tmp_path, CONFIG)
    for seconds in [50.0] * KEPT + [2.0] * KEPT:
        loads.learn(seconds)
    assert loads.expect(0).expected == 2.0 and loads.expect(0).high < 3.0


def test_other_models_and_other_devices_load_as_they_do(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Loads.of(tmp_path / "a", CONFIG).learn(70.0)
    for other in (Loads.of(tmp_path, CONFIG), Loads.of(tmp_path / "a", EngineConfig("x", data_parallel_size=2))):
        assert other.expect(0).expected == IMPORT_SECONDS
    assert Loads.of(None, CONFIG).path is None


@pytest.mark.parametrize("text", ['{"seconds": [-1.0]}', '{"seconds": [1e99]}', "{}", '{"seconds": ["x"]}'])
def test_a_damaged_file_is_no_history(text: str, tmp_path: Path) -> None:
    loads = Loads.of(tmp_path, CONFIG)
    assert loads.path is not None
    loads.learn(1.0)
    loads.path.write_text(text)
    with pytest.warns(UserWarning, match="ignored"):
        assert loads.expect(0).expected == IMPORT_SECONDS


def test_more_rows_take_longer_to_read() -> None:
    assert reading(2000, 0).expected == pytest.approx(2 * reading(1000, 0).expected)
    assert reading(1000, 10**6).expected > reading(1000, 0).expected
