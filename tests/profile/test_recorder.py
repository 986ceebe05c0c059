"""The recorder counts every moment once, whatever the steps, and stays small however many there are."""

from __future__ import annotations

import random
from dataclasses import asdict
from itertools import pairwise

import pytest

from umbel.cost.operators import DECODE, PREFILL, Ceilings
from umbel.ir.spec import ModelSpec
from umbel.measure.probe import Probe, make_step
from umbel.profile.profile import Profile
from umbel.profile.recorder import OTHER, PENDING, Recorder
from umbel.profile.timeline import RunTimeline

SPEC = ModelSpec("llama", 300, 64, 2, 4, 2, 16, 128, 512, 1e-5, 10_000.0)
CEILINGS = Ceilings(1e6, 1e7, "made up")  # slow: the floors of the steps below are milliseconds
DECODING, PROMPT = make_step(Probe(8, 20), 300), make_step(Probe(1, 0, 40), 300)


class Clock:
    """Moves only when told."""

    def __init__(self) -> None:
        self.now = 5_000

    def __call__(self) -> int:
        return self.now


def recorder(clock: Clock, timeline: RunTimeline | None = None) -> Recorder:
    made = Recorder(timeline=timeline, clock=clock)
    made.meet(SPEC, "float32", lambda: CEILINGS)
    return made


def passes(clock: Clock, made: Recorder, name: str, nanoseconds: int) -> None:
    clock.now += nanoseconds
    assert made.lap(name, value := object()) is value


def drive(made: Recorder, clock: Clock, steps: int, seed: int = 0) -> dict[str, int]:
    """Random steps with time before, in and between them; gives nanoseconds per name."""
    rng, spent = random.Random(seed), {}

    def pass_by(name: str) -> None:
        spent[name] = spent.get(name, 0) + (taken := rng.randrange(0, 50_000))
        passes(clock, made, name, taken)

    for _ in range(steps):
        pass_by("waiting")
        made.open()
        for name in rng.choices(["qkv", "attention", "head", "scheduling"], k=rng.randrange(6)):
            pass_by(name)
        clock.now += (rest := rng.randrange(0, 9_000))  # before the step ends, without a name
        spent[OTHER] = spent.get(OTHER, 0) + rest
        made.close(rng.choice([DECODING, PROMPT]), 7)
    return spent


def seconds_of(profile: Profile) -> dict[str, float]:
    found: dict[str, float] = {}
    for kind in (*profile.kinds, profile.outside):
        for part in kind.parts:
            found[part.name] = found.get(part.name, 0.0) + part.seconds
    return found


@pytest.mark.parametrize("seed", range(5))
def test_every_moment_is_counted_once(seed: int) -> None:
    clock = Clock()
    made = recorder(clock)
    spent = drive(made, clock, 40, seed)
    profile = made.profile()
    found = seconds_of(profile)
    for name, nanoseconds in spent.items():
        assert found.pop(name) == pytest.approx(nanoseconds / 1e9)
    assert not any(found.values())
    assert profile.seconds == pytest.approx(sum(spent.values()) / 1e9)
    assert profile.seconds == pytest.approx(profile.in_steps + profile.outside.total.seconds)
    assert {kind.kind for kind in profile.kinds} == {DECODE, PREFILL}
    assert sum(kind.steps for kind in profile.kinds) == 40
    assert sum(kind.tokens for kind in profile.kinds) == sum(
        kind.steps * {DECODE: 8, PREFILL: 40}[kind.kind] for kind in profile.kinds
    )


def test_a_step_that_did_not_come_to_be_is_outside() -> None:
    clock = Clock()
    made = recorder(clock)
    made.open()
    passes(clock, made, "scheduling", 3_000)
    made.open()
    passes(clock, made, "scheduling", 4_000)
    profile = made.profile()
    assert not profile.kinds
    assert seconds_of(profile)["scheduling"] == pytest.approx(7e-6)


def test_floors_are_those_of_the_work_and_rise_with_what_was_reached() -> None:
    clock = Clock()
    made = recorder(clock)
    made.open()
    flops = 2 * 64 * (64 + 2 * 32) * 2 * 40
    passes(clock, made, "qkv", 2 * 10**9)
    made.close(PROMPT, 0)
    (kind,) = made.profile().kinds
    (qkv,) = (part for part in kind.parts if part.name == "qkv")
    assert (qkv.flops, qkv.calls, qkv.bound) == (flops, 1, "arithmetic")
    assert qkv.floor == qkv.arithmetic == pytest.approx(flops / 1e6)
    assert qkv.over == pytest.approx(2 - flops / 1e6) and kind.as_dict()["total"]["seconds"] == 2.0
    made.open()
    passes(clock, made, "qkv", 1_000)  # both together are more than the ceilings allow
    made.close(PROMPT, 0)
    profile = made.profile()
    assert profile.ceilings is not None
    assert profile.ceilings.flops == pytest.approx(2 * flops / (2 + 1e-6))
    assert profile.ceilings.source == "reached by qkv in prefill-bound steps"
    assert all(part.arithmetic <= part.seconds * (1 + 1e-9) for part in profile.kinds[0].parts if part.seconds)


def test_the_device_is_waited_for_before_the_clock_is_read() -> None:
    clock, waits = Clock(), []

    def wait() -> None:
        waits.append(clock.now)
        clock.now += 1_000_000

    made = Recorder(clock=clock)
    made.meet(SPEC, "float32", lambda: CEILINGS, wait)
    made.open()
    made.lap("qkv", None)
    made.close(DECODING, 0)
    assert len(waits) == 1
    assert seconds_of(made.profile())["qkv"] == pytest.approx(1e-3)


def test_a_long_run_stays_small_and_no_step_is_lost() -> None:
    clock = Clock()
    timeline = RunTimeline(first=5, later=8, spans=16)
    made = recorder(clock, timeline)
    drive(made, clock, 3000)
    assert len(timeline.first) == 5 and 4 <= len(timeline.later) < 8
    numbers = [number for number, _ in timeline.later]
    assert len({b - a for a, b in pairwise(numbers)}) == 1, "evenly apart"
    spans = list(timeline.all_summaries())
    assert 8 <= len(spans) <= 17
    assert [s.first for s in spans] == [6, *(s.last + 1 for s in spans[:-1])] and spans[-1].last == 3000
    assert sum(step.work.tokens for _, step in timeline.first) + sum(s.tokens for s in spans) == sum(
        kind.tokens for kind in made.profile().kinds
    )
    assert len(timeline.outside) == 16 and timeline.outside_left_out > 2900
    for _ in range(3 * PENDING):
        made.lap("waiting", None)
    assert len(made._laps) < PENDING


def test_as_dict_is_plain() -> None:
    clock, high = Clock(), Ceilings(1e15, 1e15, "high")
    made = Recorder(clock=clock)
    made.meet(SPEC, "float32", lambda: high)
    drive(made, clock, 10)
    found = made.profile().as_dict()
    assert found["ceilings"] == asdict(high)
    assert found["seconds_in_steps"] == pytest.approx(sum(kind["total"]["seconds"] for kind in found["kinds"]))
    for kind in found["kinds"]:
        assert sum(part["seconds"] for part in kind["parts"]) == pytest.approx(kind["total"]["seconds"])
