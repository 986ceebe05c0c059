"""A plan in a dozen lines: what people ask first, and how much more there is."""

from __future__ import annotations

from collections.abc import Iterator

from umbel.plan.explain.replicas import replica_texts
from umbel.plan.explain.text import (
    WIDTH,
    Record,
    count,
    duration,
    entries,
    entry,
    head_texts,
    note_lines,
    title_lines,
)

MAX_NOTES = 1
_HEAD = ("time", "price", "compute", "kv peak")
_DECIDED = ("machine", "output tokens", "lossy", "replicas", "kv folder")


def brief_lines(record: Record, width: int = WIDTH) -> list[str]:
    """The lines of a plan that `to_json` wrote."""
    head = head_texts(record)
    return [
        *title_lines(record, width),
        *entries({name: head[name] for name in _HEAD if name in head}, width),
        *(entry("duplicates", head["duplicates"], width) if record["duplicate_rows"] else ()),
        *(line for name in ("layout", "documents", "forms") if name in head for line in entry(name, head[name], width)),
        *_decided(record, width),
        *entries(_replicas(record), width),
        *note_lines(record["notes"], width, MAX_NOTES),
    ]


def _decided(record: Record, width: int) -> Iterator[str]:
    """The decisions that are about the job rather than about how it is computed."""
    for decision in record["decisions"]:
        if decision["name"] in _DECIDED:
            yield from entry(decision["name"], f"{_value(decision['value'])}: {decision['reason']}", width)


def _replicas(record: Record) -> dict[str, str]:
    """Of several replicas the machines, and what one more or fewer costs."""
    wanted = ("machines", "one fewer", "as asked", "one more")
    texts = replica_texts(record["replicas"], duration) if "replicas" in record else ()
    return {name: text for name, text in texts if name in wanted}


def _value(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def folded(record: Record) -> str:
    """What a short form leaves out, counted."""
    runs = count(sum(level["nodes"] for level in record["levels"]), "run")
    refused = count(len(record["refusals"]), "technique")
    decisions = count(len(record["decisions"]), "decision")
    return f"{decisions}, {refused} refused or idle, a forest of {runs}: -v lists them"
