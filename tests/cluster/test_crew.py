"""The books of several replicas, on a clock that is set by hand: time at work and idle, lots, losses, who may join."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.test_replicas import faked
from umbel.cluster.crew import Crew
from umbel.cluster.executor import Event
from umbel.cluster.frames import Kind
from umbel.errors import UmbelError
from umbel.ir.params import SamplingParams
from umbel.ir.report import Stats
from umbel.ir.tally import added_tallies


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def ready(number: int, **made: str) -> Event:
    known = {"model": "aaaa", "umbel": "1", "dtype": "float32", "device": "cpu", **made}
    told: dict[str, Any] = {"machine": {}, "dtype": "float32", "on": f"node{number}", "made": known}
    return Event(number, Kind.READY, json.dumps(told).encode())


def test_time_is_at_work_or_idle_while_there_is_something_to_run() -> None:
    clock = Clock()
    crew = Crew(2, clock=clock)
    crew.join(ready(0))
    crew.join(ready(1))
    clock.now = 5.0  # nothing to run: not counted
    crew.begin()
    crew.give(0, 1, stolen=False)
    clock.now = 7.0
    crew.give(1, 2, stolen=True)
    clock.now = 10.0
    assert [one.state for one in crew.tallies()] == ["running", "running"]
    crew.done(0, 1)
    crew.told(1, Stats(output_tokens=7, computed_prompt_tokens=3))
    crew.answered(1)
    clock.now = 11.0
    assert crew.tallies()[0].idle_seconds == 1.0  # as it goes on
    crew.end()
    clock.now = 20.0
    first, second = crew.tallies()
    assert (first.seconds, first.idle_seconds, first.lots, first.stolen) == (5.0, 1.0, 1, 0)
    assert (second.seconds, second.idle_seconds, second.lots, second.stolen) == (4.0, 2.0, 1, 1)
    assert (second.rows, second.output_tokens, second.prompt_tokens, second.on) == (1, 7, 3, "node1")


def test_a_loss_keeps_what_was_done_and_a_new_process_goes_on() -> None:
    clock = Clock()
    crew = Crew(1, clock=clock)
    crew.start([0])
    crew.join(ready(0))
    crew.want(0)
    crew.begin()
    crew.give(0, 1, stolen=False)
    assert not crew.wanting
    crew.told(0, Stats(output_tokens=5))
    clock.now = 3.0
    crew.lose(0, dealt_again=4)
    (lost,) = crew.tallies()
    assert (lost.state, lost.dealt_again, lost.restarts, lost.seconds) == ("lost", 4, 0, 3.0)
    crew.start([0])
    clock.now = 9.0  # it loads: neither at work nor idle
    crew.join(ready(0))
    crew.told(0, Stats(output_tokens=2))
    crew.end()
    (back,) = crew.tallies()
    assert (back.state, back.restarts, back.seconds, back.idle_seconds) == ("waiting", 1, 3.0, 0.0)
    assert back.output_tokens == 7 and crew.stats() == Stats(output_tokens=7, lost_processes=1)


def test_another_kind_of_machine_may_join_only_where_that_was_asked_for() -> None:
    for name in ("umbel", "device"):
        crew = Crew(2)
        crew.join(ready(0))
        words = rf"replica 1 on node1 would answer with other bits: {name} 2 instead of .*--mixed-replicas"
        with pytest.raises(UmbelError, match=words):
            crew.join(ready(1, **{name: "2"}))
        mixed = Crew(2, mixed=True)
        mixed.join(ready(0))
        mixed.join(ready(1, **{name: "2"}))
        assert mixed.tallies()[1].differs.startswith(f"{name} 2 instead of") and not mixed.tallies()[0].differs


@pytest.mark.parametrize("name", ["model", "dtype"])
def test_another_model_never_joins(name: str) -> None:
    crew = Crew(2, mixed=True)
    crew.join(ready(0))
    with pytest.raises(UmbelError, match=f"{name} 2 instead of") as raised:
        crew.join(ready(1, **{name: "2"}))
    assert "--mixed-replicas" not in str(raised.value) and crew.ready == {0}


def test_tallies_of_several_runs_add_up_by_number() -> None:
    crew = Crew(2)
    crew.join(ready(0))
    crew.answered(0)
    once = added_tallies([], crew.tallies())
    twice = added_tallies(once, crew.tallies())
    assert [one["rows"] for one in twice] == [2, 0] and twice[0]["on"] == "node0"
    assert json.loads(json.dumps(twice)) == twice


def test_replicas_tell_what_each_did_when_one_row_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer is one replica's; rows that a dead one had are dealt again, and its process is started again."""
    replicas = faked(tmp_path, monkeypatch)
    prompts = [[i + 20] for i in range(40)]
    prompts[11] = [3, 13]
    replicas.generate(prompts, SamplingParams(max_tokens=2))
    told = replicas.replicas()
    assert sum(one.rows for one in told) == 39 and sum(one.lots for one in told) > 2
    assert sum(one.restarts for one in told) >= 1 and sum(one.dealt_again for one in told) >= 1
    assert all(one.seconds > 0 for one in told if one.rows)
