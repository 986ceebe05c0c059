"""Writes a timeline as Chrome trace events: a JSON file that ui.perfetto.dev and chrome://tracing open.

Times are whole microseconds since the run began, rounded down, so that pieces which touch each other still do. Of each
step the same moments are the ends of one slice and the beginning of the next: slices on a track nest and never overlap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, BinaryIO

import orjson

from umbel.profile.profile import Profile
from umbel.profile.timeline import RunTimeline, StepSlice

_JOB = 1  # the only process and thread: what runs beside the engine shows as time that it was kept waiting


def write_trace(out: BinaryIO, timeline: RunTimeline, profile: Profile) -> None:
    """Write the timeline, with the profile's totals under "otherData"."""
    head = orjson.dumps({"displayTimeUnit": "ms", "otherData": {"profile": profile.as_dict(), "kept": kept(timeline)}})
    out.write(head[:-1] + b',"traceEvents":[\n')
    for i, event in enumerate(events(timeline)):
        out.write((b",\n" if i else b"") + orjson.dumps(event))
    out.write(b"\n]}\n")


def kept(timeline: RunTimeline) -> str:
    """How much of the run the file shows, as text."""
    full = len(timeline.first) + len(timeline.later)
    if full == timeline.n_steps and not timeline.outside_left_out:
        return f"all {full:,} steps"
    text = f"of {timeline.n_steps:,} steps the first {len(timeline.first):,} and {len(timeline.later):,} later ones"
    more = f"; {timeline.outside_left_out:,} pieces outside of steps left out" if timeline.outside_left_out else ""
    return f"{text} in full, the others in summary{more}"


def events(timeline: RunTimeline) -> Iterator[dict[str, Any]]:
    """The events by time; of slices that begin together the outer one comes first."""
    for name, value in (("process_name", "umbel run"), ("thread_name", "job")):
        named = {"ph": "M", "cat": "__metadata", "name": name, "ts": 0, "args": {"name": value}}
        yield named | {"pid": _JOB, "tid": _JOB}
    found = sorted(_timed(timeline), key=lambda pair: pair[0])
    start = found[0][1]["ts"] if found else 0
    for _, event in found:
        yield event | {"ts": event["ts"] - start, "pid": _JOB, "tid": _JOB}


Timed = tuple[tuple[int, int, int], dict[str, Any]]  # its place in the file, and the event


def _timed(timeline: RunTimeline) -> Iterator[Timed]:
    for piece in timeline.outside:
        yield _slice(piece.name, "outside of steps", (piece.begin, piece.end), 0, {})
    for span in timeline.all_summaries():
        count = span.last - span.first + 1
        name = f"steps {span.first:,} to {span.last:,}" if count > 1 else f"step {span.first:,}"
        yield _slice(name, "steps", (span.begin, span.end), 0, {"steps": count, "tokens": span.tokens})
    for number, step in (*timeline.first, *timeline.later):
        yield from _step(number, step)


def _step(number: int, step: StepSlice) -> Iterator[Timed]:
    work = step.work
    yield _slice(step.kind, "step", (step.begin, step.end), 1, {"step": number} | asdict(work))
    layer = -1
    for piece in step.parts:
        layer += piece.name == "qkv"
        inside = {"layer": layer} if layer >= 0 and piece.name in _LAYERED else {}
        yield _slice(piece.name, "operator", (piece.begin, piece.end), 2, inside)
    counters = {
        "tokens a step": {"prompts": work.tokens - work.decoding, "decoding": work.decoding},
        "rows decoding": {"rows": work.decoding},
        "KV tokens": {"in use": work.in_use, "moved a layer": work.kv_tokens},
    }
    for name, values in counters.items():
        event = {"ph": "C", "cat": "counter", "name": name, "ts": step.begin // 1000, "args": values}
        yield (step.begin, 0, 3), event


_LAYERED = ("qkv", "rotary", "attention", "o", "gate_up", "down", "router", "experts")


def _slice(name: str, category: str, span: tuple[int, int], depth: int, args: dict[str, Any]) -> Timed:
    begin, end = span
    ts = begin // 1000
    event = {"ph": "X", "name": name, "cat": category, "ts": ts, "dur": end // 1000 - ts, "args": args}
    return (begin, -end, depth), event
