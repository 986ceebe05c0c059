"""What each of several replicas has done: counters that the report compares with the plan, and displays show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

LOADING, RUNNING, WAITING, LOST = "loading", "running", "waiting", "lost"
SUMS = ("rows", "prompt_tokens", "output_tokens", "seconds", "idle_seconds")
COUNTS = ("lots", "stolen", "restarts", "dealt_again", "doubled")


@dataclass(frozen=True, slots=True)
class ReplicaTally:
    """A replica, by its `number`, over all processes that it had.

    `state`: "loading", "running", "waiting" (for rows, of which there are none) or "lost".
    `on`: the machine that it is on; `differs`: what its answers depend on that is another than the first replica's,
        where that was allowed. Both are "" where they are not known or there is nothing to say.
    `rows`: answered. `prompt_tokens`: computed for the first time in a process.
    `seconds`: with rows to run; `idle_seconds`: loaded, without any, while others still had some.
    `lots`: taken, of which `stolen` were planned for another; `restarts`: of its process.
    `dealt_again`: rows that it had when it was lost, without an answer; they were dealt to those that were free.
    `doubled`: rows that it was given although a slower replica runs them, whose answer counts if it comes first.
    """

    number: int
    state: str = LOADING
    on: str = ""
    differs: str = ""
    rows: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    idle_seconds: float = 0.0
    lots: int = 0
    stolen: int = 0
    restarts: int = 0
    dealt_again: int = 0
    doubled: int = 0


def added_tallies(earlier: Sequence[Mapping[str, Any]], now: Sequence[ReplicaTally]) -> list[dict[str, Any]]:
    """Tallies of several runs of a job, as records: those of the same number are one, with what it is now."""
    found = {one["number"]: dict(one) for one in earlier}
    for tally in now:
        before, record = found.get(tally.number, {}), asdict(tally)
        for name in (*SUMS, *COUNTS):
            record[name] += before.get(name, 0)
        found[tally.number] = record
    return [found[number] for number in sorted(found)]
