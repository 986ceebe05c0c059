"""Who is given up, on a clock that is set by hand."""

from __future__ import annotations

import pytest

from umbel.cluster import heartbeats as watch_module
from umbel.cluster.heartbeats import Heartbeats


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def watched() -> tuple[Heartbeats, Clock]:
    clock = Clock()
    watch = Heartbeats(silent=60.0, stuck=3600.0, clock=clock)
    watch.begin(0)
    return watch, clock


def test_one_that_beats_lives_however_long_its_step_takes() -> None:
    watch, clock = watched()
    watch.hear(0)
    watch.work(0, busy=True)
    while clock.now < 3500.0:
        clock.now += 50.0
        watch.hear(0, b"step 7")
        assert watch.lost() == {}


def test_one_that_falls_silent_is_lost() -> None:
    watch, clock = watched()
    watch.begin(1)
    for number in (0, 1):
        watch.hear(number, b"")
    clock.now = 61.0
    watch.hear(1, b"")
    assert watch.lost() == {0: "gave no sign of life for 60 s"}
    watch.forget(0)
    assert watch.lost() == {}


def test_one_that_gets_no_further_is_lost_unless_it_has_nothing_to_do() -> None:
    watch, clock = watched()
    watch.hear(0, b"step 7")
    for clock.now in (3000.0, 3601.0):
        watch.hear(0, b"step 7")
    assert watch.lost() == {0: "got no further for 3,600 s"}
    watch.hear(0, b"step 8")
    assert watch.lost() == {}
    watch.work(0, busy=False)
    clock.now = 9000.0
    watch.hear(0, b"step 8")
    assert watch.lost() == {}
    watch.work(0, busy=True)
    assert watch.lost() == {}


def test_one_that_is_still_importing_is_not_expected_to_beat() -> None:
    watch, clock = watched()
    clock.now = 3500.0
    assert watch.lost() == {}
    clock.now = 3601.0
    assert watch.lost() == {0: "got no further for 3,600 s"}


def test_the_time_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert watch_module.silent_seconds() == watch_module.SILENT_SECONDS
    monkeypatch.setenv(watch_module.SILENT_VARIABLE, "5")
    assert watch_module.silent_seconds() == 5.0
    monkeypatch.setenv(watch_module.SILENT_VARIABLE, "soon")
    assert watch_module.silent_seconds() == watch_module.SILENT_SECONDS


def test_silence_is_told_once_long_before_the_end_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    watch, clock = watched()
    watch.hear(0, b"")
    for clock.now in (9.0, 12.0, 30.0):
        assert watch.lost() == {}
    assert caplog.messages == [
        "umbel: replica 0 has given no sign of life for 12 s; after 60 s it is ended and its rows go to others"
    ]
    watch.hear(0, b"")
    watch.lost()
    watch.lost()
    assert caplog.messages[1:] == ["umbel: replica 0 gives signs of life again"]
