"""The nodes of a simulated cluster: how fast each is, when it comes, and when it is lost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from umbel.errors import UsageError


@dataclass(frozen=True, slots=True)
class Node:
    """A node that has `speed` times the pace of the machine that was priced, from second `comes` to second `goes`."""

    speed: float = 1.0
    comes: float = 0.0
    goes: float = math.inf


def nodes_of(replicas: int, speeds: str | None, joins: str | None, losses: str | None) -> list[Node]:
    """The nodes of so many replicas: `speeds` for the first ones ("1,1,0.33"), and REPLICA@SECONDS, by commas, for
    those that come later and those that are lost. Raises UsageError."""
    nodes = [Node() for _ in range(replicas)]
    for i, text in enumerate(filter(None, (speeds or "").split(","))):
        _check("--speeds", text, i, replicas)
        nodes[i] = replace(nodes[i], speed=_number("--speeds", text, least=1e-6))
    for i, seconds in _times("--joins", joins, replicas):
        nodes[i] = replace(nodes[i], comes=seconds)
    for i, seconds in _times("--losses", losses, replicas):
        nodes[i] = replace(nodes[i], goes=seconds)
    return nodes


def least_seconds(nodes: Sequence[Node], work: float) -> float:
    """The seconds that nodes take together at least for what takes one of speed 1 `work` seconds: the sum of their
    speeds while they are there; infinite where they are lost before."""
    changes = sorted({t for node in nodes for t in (node.comes, node.goes) if t < math.inf} | {0.0})
    for begin, end in zip(changes, [*changes[1:], math.inf], strict=True):
        speed = sum(node.speed for node in nodes if node.comes <= begin < node.goes)
        if work <= speed * (end - begin):
            return begin + work / speed if work else begin
        work -= speed * (end - begin) if speed else 0.0
    return math.inf


def _times(option: str, text: str | None, replicas: int) -> list[tuple[int, float]]:
    found = []
    for part in filter(None, (text or "").split(",")):
        number, _, seconds = part.partition("@")
        if not number.strip().isdecimal():
            raise UsageError(f"{option} {part!r}: must be REPLICA@SECONDS, as in 2@30")
        _check(option, part, int(number), replicas)
        found.append((int(number), _number(option, seconds, least=0.0)))
    return found


def _check(option: str, text: str, replica: int, replicas: int) -> None:
    if replica >= replicas:
        raise UsageError(f"{option} {text!r}: there is no replica {replica}; they are 0 to {replicas - 1}")


def _number(option: str, text: str, least: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value < math.inf:
        raise UsageError(f"{option} {text!r}: must be a number of at least {least:g}")
    return value
