"""How a plan and a report show several replicas: machines, shares, the tail, and what one more or fewer would cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from umbel.plan.deal.shared_plan import SharedPlan

Record = Mapping[str, Any]
Grid = tuple[str, Sequence[str], Sequence[Sequence[str]], Sequence[str]]

SHOWN = 16  # replicas that a table lists; the others are summed up


def replicas_of(plan: SharedPlan) -> dict[str, Any]:
    """The replicas of a plan as JSON: `shares`, each with its figures and the seconds that it is idle before the last
    one is through; what is computed more than once; and the `tail`: from when the first is through to when the last is.
    """
    idle = plan.idle_seconds
    shares = [{**asdict(share), "idle_seconds": seconds} for share, seconds in zip(plan.planned, idle, strict=True)]
    return {
        "count": len(shares),
        "shares": shares,
        "recomputed_tokens": plan.recomputed_tokens,
        "recomputed_seconds": plan.recomputed_seconds,
        "tail_seconds": max(idle, default=0.0),
        "idle_seconds": sum(idle),
    }


def put_prices(record: dict[str, Any], seconds: Mapping[int, float | None]) -> None:
    """Put what other numbers of replicas would take into the record of a plan: by number the seconds from start to end
    (None: they do not fit), and those of all replicas together, which is what is paid for."""
    prices = [
        {"replicas": n, "seconds": s, "replica_seconds": None if s is None else n * s}
        for n, s in sorted(seconds.items())
    ]
    record["replicas"]["prices"] = prices


def put_nodes(record: dict[str, Any], nodes: Sequence[Mapping[str, Any]], unasked: str) -> None:
    """Put the machines that were found into the record of a plan, or why none could be asked."""
    record["replicas"] |= {"nodes": [dict(node) for node in nodes], "unasked": unasked}


def replica_grid(replicas: Record, duration: Callable[[float], str]) -> Grid:
    """The replicas of a plan as a table for a page: its title, the heads of its columns, its rows, and notes."""
    heads = ("replica", "rows", "subtrees", "prompt tokens", "time", "idle at the end")
    rows = [
        (name, f"{one['rows']:,}", f"{one['subtrees']:,}", f"{one['tokens']:,}", *map(duration, _times(one)))
        for name, one in _listed(replicas["shares"], ("rows", "subtrees", "tokens", "seconds", "idle_seconds"))
    ]
    return "Replicas", heads, rows, [text for _, text in replica_texts(replicas, duration)]


def replica_lines(replicas: Record, duration: Callable[[float], str]) -> Iterator[str]:
    """The shares of a plan's replicas as a table."""
    yield f"{'replicas':<8}{'rows':>9}{'subtrees':>9}{'tokens':>12}{'time':>11}{'idle':>11}"
    for name, one in _listed(replicas["shares"], ("rows", "subtrees", "tokens", "seconds", "idle_seconds")):
        time, idle = map(duration, _times(one))
        yield f"  {name:<6}{one['rows']:>9,}{one['subtrees']:>9,}{one['tokens']:>12,}{time:>11}{idle:>11}"


def _times(one: Record) -> tuple[float, float]:
    return one["seconds"], one["idle_seconds"]


def _listed(rows: Sequence[Record], names: Sequence[str]) -> Iterator[tuple[str, Record]]:
    """The first rows by number, and the sums of the others."""
    for number, row in enumerate(rows[:SHOWN]):
        yield str(number), row
    if rest := rows[SHOWN:]:
        yield f"{len(rest):,} more", {name: sum(row[name] for row in rest) for name in names}


def replica_texts(replicas: Record, duration: Callable[[float], str]) -> Iterator[tuple[str, str]]:
    """What else is to be said of a plan's replicas: a name and a text each."""
    if "nodes" in replicas:
        yield "machines", _nodes(replicas)
    tokens, seconds = replicas["recomputed_tokens"], replicas["recomputed_seconds"]
    yield "twice", f"{tokens:,} prompt tokens, {duration(seconds)}, of runs that several replicas compute"
    idle, tail = replicas["idle_seconds"], duration(replicas["tail_seconds"])
    share = idle / max(sum(one["seconds"] for one in replicas["shares"]) + idle, 1e-12)
    yield "tail", f"the last is through {tail} after the first; {share:.1%} of all replicas' time is idle by then"
    yield from price_texts(replicas, duration)


def price_texts(replicas: Record, duration: Callable[[float], str]) -> Iterator[tuple[str, str]]:
    """What one replica fewer, as many as asked and one more take from start to end, and all of them together."""
    for price in replicas.get("prices", ()):
        n = price["replicas"]
        name = "one fewer" if n < replicas["count"] else "one more" if n > replicas["count"] else "as asked"
        if price["seconds"] is None:
            yield name, f"{n:,}: a row would not fit the memory of each"
            continue
        time, paid = duration(price["seconds"]), duration(price["replica_seconds"])
        yield name, f"{n:,}: {time} from start to end, {paid} of all replicas together"


def _nodes(replicas: Record) -> str:
    """The machines that were found, in words."""
    if replicas["unasked"]:
        return f"not asked: {replicas['unasked']}"
    nodes = replicas["nodes"]
    listed = "; ".join(_node(node) for node in nodes[:SHOWN])
    more = f"; and {len(nodes) - SHOWN:,} more" if len(nodes) > SHOWN else ""
    return f"{len(nodes):,} found: {listed}{more}" if nodes else "none found that can take a replica yet"


def _node(node: Record) -> str:
    gpus = f", {node['gpus']:,} GPUs" if node["gpus"] else ""
    memory = f", {node['memory_bytes'] / 2**30:.3g} GiB free" if node["memory_bytes"] else ""
    fault = f", {node['fault']}" if node["fault"] else ""
    return f"{node['name']} ({node['processors']:,} processors{gpus}{memory}{fault})"
