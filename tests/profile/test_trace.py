"""The trace file, read back by the rules of the Chrome trace event format and by nothing of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_models import make_model
from umbel.api import LLM
from umbel.ir.params import SamplingParams
from umbel.profile.recorder import Recorder
from umbel.profile.timeline import RunTimeline
from umbel.profile.trace import write_trace

LAYERS = 2
PROMPTS = [[5, 6, 7, 8, 9, 10, 11, i, i + 1] for i in range(12)]
PARAMS = SamplingParams(temperature=0.0, max_tokens=9, ignore_eos=True)
Event = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("trace") / "qwen3", "qwen3", seed=3)


def trace_of(folder: Path, path: Path, timeline: RunTimeline) -> tuple[dict[str, Any], list[tuple[int, ...]]]:
    """Run a small job and give the file's JSON and the answers."""
    recorder = Recorder(timeline=timeline)
    llm = LLM(str(folder), profile=recorder, dtype="float32", device="cpu", threads=1, chunk=32)
    answers = [o.outputs[0].token_ids for o in llm.generate(PROMPTS, PARAMS)]
    with path.open("wb") as out:
        write_trace(out, timeline, recorder.profile())
    return json.loads(path.read_text()), answers


def nested(events: list[Event]) -> list[tuple[Event, Event | None]]:
    """Complete events with their parents, as a viewer stacks them; what overlaps without nesting is an error."""
    stack: list[Event] = []
    found = []
    for event in events:
        begin, end = event["ts"], event["ts"] + event["dur"]
        while stack and stack[-1]["ts"] + stack[-1]["dur"] <= begin and stack[-1] is not event:
            stack.pop()
        assert not stack or end <= stack[-1]["ts"] + stack[-1]["dur"], (event, stack[-1])
        found.append((event, stack[-1] if stack else None))
        stack.append(event)
    return found


def check(trace: dict[str, Any]) -> list[tuple[Event, Event | None]]:
    """The rules of the format that a viewer rests on; gives the slices with their parents."""
    assert trace["displayTimeUnit"] in ("ms", "ns")
    events = trace["traceEvents"]
    assert {e["ph"] for e in events} == {"M", "X", "C"}
    for event in events:
        assert isinstance(event["name"], str) and event["name"]
        assert isinstance(event["pid"], int) and isinstance(event["tid"], int)
        assert isinstance(event["args"], dict)
        assert isinstance(event["cat"], str), "some readers insist on a category"
        assert isinstance(event["ts"], int) and event["ts"] >= 0
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name") and isinstance(event["args"]["name"], str)
            continue
        if event["ph"] == "X":
            assert isinstance(event["dur"], int) and event["dur"] >= 0
        else:
            assert event["args"] and all(isinstance(v, int) and v >= 0 for v in event["args"].values())
    timed = [e for e in events if e["ph"] != "M"]
    assert [e["ts"] for e in timed] == sorted(e["ts"] for e in timed)
    assert len({(e["pid"], e["tid"]) for e in timed}) == 1
    return nested([e for e in timed if e["ph"] == "X"])


def test_a_whole_run(folder: Path, tmp_path: Path) -> None:
    trace, answers = trace_of(folder, tmp_path / "t.json", RunTimeline())
    plain = LLM(str(folder), dtype="float32", device="cpu", threads=1, chunk=32).generate(PROMPTS, PARAMS)
    assert answers == [o.outputs[0].token_ids for o in plain], "listening changes nothing"
    slices = check(trace)
    steps = [e for e, _ in slices if e["cat"] == "step"]
    assert [e["args"]["step"] for e in steps] == list(range(1, len(steps) + 1)) and len(steps) >= 9
    assert {e["name"] for e in steps} <= {"prefill-bound", "mixed", "decode-bound"} and len(
        {e["name"] for e in steps}
    ) > 1
    for step in steps:
        inner = [e for e, parent in slices if parent is step]
        assert sum(e["dur"] for e in inner) == step["dur"], "a step is its parts, without a gap"
        counts = {name: sum(e["name"] == name for e in inner) for name in ("qkv", "attention", "down", "norms", "head")}
        assert counts == {"qkv": LAYERS, "attention": LAYERS, "down": LAYERS, "norms": 2 * LAYERS + 1, "head": 1}
        assert [e["args"]["layer"] for e in inner if e["name"] == "o"] == list(range(LAYERS))
    tokens = sum(e["args"]["tokens"] for e in steps)
    assert tokens == 7 + 12 * 2 + 12 * 8, "shared tokens once, own ones, and all that is said but the last"
    counters = [e for e in trace["traceEvents"] if e["ph"] == "C"]
    assert sum(sum(e["args"].values()) for e in counters if e["name"] == "tokens a step") == tokens
    assert len({e["name"] for e in counters}) == 3 and len(counters) == 3 * len(steps)


def test_totals_agree_with_the_slices(folder: Path, tmp_path: Path) -> None:
    trace, _ = trace_of(folder, tmp_path / "t.json", RunTimeline())
    slices, profile = check(trace), trace["otherData"]["profile"]
    assert trace["otherData"]["kept"].startswith("all ")
    steps = [e for e, _ in slices if e["cat"] == "step"]
    for kind in profile["kinds"]:
        of_kind = [e for e in steps if e["name"] == kind["kind"]]
        assert len(of_kind) == kind["steps"]
        assert sum(e["dur"] for e in of_kind) == pytest.approx(kind["total"]["seconds"] * 1e6, abs=2 * len(of_kind))
        assert sum(part["seconds"] for part in kind["parts"]) == pytest.approx(kind["total"]["seconds"])
        for part in kind["parts"]:
            inside = [e for e, parent in slices if parent in of_kind and e["name"] == part["name"]]
            assert len(inside) == part["calls"]
            assert sum(e["dur"] for e in inside) == pytest.approx(part["seconds"] * 1e6, abs=2 * len(inside))
    whole = profile["seconds_in_steps"] + profile["outside"]["total"]["seconds"]
    assert whole == pytest.approx(profile["seconds"])
    names = {part["name"] for part in profile["outside"]["parts"]}
    assert {"loading the model", "measuring the machine", "recording"} <= names


@pytest.mark.slow
def test_a_sampled_run(folder: Path, tmp_path: Path) -> None:
    trace, _ = trace_of(folder, tmp_path / "t.json", RunTimeline(first=2, later=4, spans=4))
    slices = check(trace)
    assert "the others in summary" in trace["otherData"]["kept"]
    full = [e for e, _ in slices if e["cat"] == "step"]
    spans = [(e, parent) for e, parent in slices if e["cat"] == "steps"]
    assert [e["args"]["step"] for e in full][:2] == [1, 2] and 3 < len(full) < 6
    assert 2 + sum(e["args"]["steps"] for e, _ in spans) == sum(
        k["steps"] for k in trace["otherData"]["profile"]["kinds"]
    )
    assert all(parent is None for _, parent in spans)
    for step, parent in ((e, parent) for e, parent in slices if e["cat"] == "step" and e["args"]["step"] > 2):
        assert parent is not None and parent["cat"] == "steps", step


def test_the_reader_here_sees_what_overlaps() -> None:
    a, b = {"ts": 0, "dur": 10}, {"ts": 5, "dur": 10}
    with pytest.raises(AssertionError):
        nested([a, b])
    assert nested([a, {"ts": 5, "dur": 5}, {"ts": 10, "dur": 5}])[2][1] is None
