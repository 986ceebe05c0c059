"""Each of several replicas in a report: what was planned for it beside what it did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from umbel.ir.tally import COUNTS, SUMS
from umbel.plan.explain.replicas import Grid
from umbel.plan.explain.text import WIDTH, count, duration, entry

Record = Mapping[str, Any]

SHOWN = 16  # replicas that a text lists; the others are summed up
_PLANNED = {"rows": "rows", "tokens": "prompt_tokens", "seconds": "seconds", "idle_seconds": "idle_seconds"}
_HEADS = ("replica", "rows", "planned", "prompt tokens", "planned", "tokens out", "time", "planned", "idle", "planned")
_COUNTED = ("lots", "taken over", "restarts", "rows dealt again", "rows run twice")


def replicas_of(shares: Sequence[Record], tallies: Sequence[Record]) -> list[dict[str, Any]]:
    """The replicas of a report, by number: `planned` rows, prompt tokens, seconds and idle seconds, for what is done;
    `actual` ones with what else a ReplicaTally counts; `on` and `differs` as there. Empty where there is one."""
    found = []
    for tally in tallies:
        number = tally["number"]
        share = shares[number] if number < len(shares) else {}
        planned = {name: share.get(of, 0) for of, name in _PLANNED.items()}
        planned |= {name: round(planned[name]) for name in ("rows", "prompt_tokens")}
        actual = {name: tally.get(name, 0) for name in (*SUMS, *COUNTS)}
        where = {"on": tally["on"], "differs": tally["differs"]}
        found.append({"replica": number, **where, "planned": planned, "actual": actual})
    return found


def replica_lines(replicas: Sequence[Record], width: int = WIDTH) -> Iterator[str]:
    """An entry for each of the first replicas, and one for the others together."""
    for one in replicas[:SHOWN]:
        where = "".join(f"; {one[name]}" for name in ("on", "differs") if one[name])
        yield from entry(f"replica {one['replica']}", _text(one["planned"], one["actual"]) + where, width)
    if rest := replicas[SHOWN:]:
        yield from entry(f"{len(rest):,} more", _text(*(_sum(rest, part) for part in ("planned", "actual"))), width)


def _sum(replicas: Sequence[Record], part: str) -> dict[str, Any]:
    return {name: sum(one[part][name] for one in replicas) for name in replicas[0][part]}


def _text(planned: Record, actual: Record) -> str:
    """What a replica did, planned figures in brackets."""
    parts = [
        f"{count(actual['rows'], 'row')} ({planned['rows']:,} planned)",
        f"{actual['prompt_tokens']:,} prompt tokens ({planned['prompt_tokens']:,})",
        f"{actual['output_tokens']:,} out",
        f"{duration(actual['seconds'])} ({duration(planned['seconds'])})",
        f"idle {duration(actual['idle_seconds'])} ({duration(planned['idle_seconds'])})",
    ]
    lots = count(actual["lots"], "lot") + (f", {actual['stolen']:,} taken over" if actual["stolen"] else "")
    if actual["restarts"]:
        lots += f"; started {count(actual['restarts'], 'time')} again"
    if actual["dealt_again"]:
        lots += f"; {count(actual['dealt_again'], 'row')} of it lost and dealt again"
    if actual["doubled"]:
        lots += f"; {count(actual['doubled'], 'row')} of slower ones run as well"
    return f"{', '.join(parts)}; {lots}"


def replica_grids(replicas: Sequence[Record]) -> list[Grid]:
    """The replicas as a table for a page, where there are some."""
    if not replicas:
        return []
    notes = [f"replica {one['replica']} differs from the first: {one['differs']}" for one in replicas if one["differs"]]
    note = "Time is that with rows to run, and idle that without any while others had some; planned is what was due."
    return [("Replicas", (*_HEADS, *_COUNTED), [_cells(one) for one in replicas], [note, *notes])]


def _cells(one: Record) -> list[str]:
    actual, planned = one["actual"], one["planned"]
    counted = [f"{side[name]:,}" for name in ("rows", "prompt_tokens") for side in (actual, planned)]
    timed = [duration(side[name]) for name in ("seconds", "idle_seconds") for side in (actual, planned)]
    name = f"{one['replica']}{' on ' + one['on'] if one['on'] else ''}"
    return [name, *counted, f"{actual['output_tokens']:,}", *timed, *(f"{actual[n]:,}" for n in COUNTS)]
