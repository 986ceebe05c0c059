"""Plans a workload for several replicas: the plan of the whole, its rows distributed, the time of the longest part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from umbel.ir.distinct import Distinct
from umbel.ir.plan import Decision, Estimates, Fact, Plan
from umbel.ir.selection import select_rows
from umbel.ir.workload import Workload
from umbel.plan.deal.placement import Placement, place

Ints = NDArray[np.int64]
SHOWN = 8  # replicas whose rows are listed
OF_EACH = ("chunk", "kv_tokens", "admission")  # decisions that are about one replica


@dataclass(frozen=True, slots=True)
class SharedPlan(Plan):
    """The plan of a whole input with the rows of each bundle; the first `replicas` are one for each replica.

    Forest, order and groups are those of the whole, `kv_tokens` and `chunk` those of one replica. Steps and tokens
    computed are estimated over all replicas, seconds for the one that is expected to take longest.
    """

    bundles: tuple[Ints, ...] = ()


def plan_replicas(workload: Workload, replicas: int, make: Callable[[Workload], Plan]) -> SharedPlan:
    """Plan a workload for equal replicas; `make` plans one of them. Raises what `make` raises."""
    whole = make(workload)
    samples = Distinct.of(workload.params).column(lambda p: p.n)
    placement = place(whole, samples, replicas)
    bundles, longest = placement.bundles, _longest(placement)
    part = make(select_rows(workload, longest)) if len(longest) < len(workload) else whole
    shared = SharedPlan(**{f.name: getattr(whole, f.name) for f in fields(Plan)}, bundles=bundles)
    decision = _decision(whole, placement)
    own = {d.name: d for d in part.decisions if d.name in OF_EACH}
    return replace(
        shared,
        kv_tokens=part.kv_tokens,
        chunk=part.chunk,
        decisions=(*(own.get(d.name, d) for d in whole.decisions), decision),
        estimates=_estimates(whole, part, placement),
    )


def _longest(placement: Placement) -> Ints:
    """The rows of the replica that is expected to take longest, with its part of those held back."""
    replicas, seconds = placement.replicas, placement.seconds
    tails = placement.bundles[replicas:]
    if not tails:
        return placement.bundles[int(seconds.argmax())]
    at = int((seconds[:replicas] + seconds[replicas:]).argmax())
    return np.concatenate([placement.bundles[at], tails[at]])


def _estimates(whole: Plan, part: Plan, placement: Placement) -> Estimates:
    """Estimates: tokens of the whole, steps as if all replicas took as many as the longest, seconds and memory of the
    longest."""
    of_all, of_one, replicas = whole.estimates, part.estimates, placement.replicas
    return replace(
        of_all,
        computed_prompt_tokens=int(placement.tokens.sum()),
        kv_peak_tokens=of_one.kv_peak_tokens,
        steps=of_one.steps * replicas,
        seconds=of_one.seconds,
        saved_seconds=of_all.saved_seconds / replicas,
        curve=replace(of_one.curve, steps=of_one.curve.steps * replicas),
    )


def _decision(whole: Plan, placement: Placement) -> Decision:
    """The rows of each replica, the tokens computed more than once for them, and whose seconds the estimate is."""
    replicas = placement.replicas
    own, tails = placement.bundles[:replicas], placement.bundles[replicas:]
    *counts, last = [f"{len(rows):,}" for rows in own[:SHOWN]]
    listed = f"{', '.join(counts)} and {last}" if replicas <= SHOWN else f"{', '.join([*counts, last])}, ..."
    held = ", {held_rows:,} for the first free replica" if tails else ""
    why = (
        f"{{rows}} rows, by subtrees of the forest{held}; {{recomputed_tokens:,}} prompt tokens are computed again for "
        "it; the longest part is {uneven:.1%} above the mean, and the seconds are its own; one replica alone would "
        "take {single_seconds:.3g} s"
    )
    facts: dict[str, Fact] = {
        "rows": listed,
        "held_rows": sum(map(len, tails)),
        "recomputed_tokens": int(placement.tokens.sum()) - whole.forest.n_tokens,
        "uneven": placement.makespan * replicas / max(float(placement.seconds.sum()), 1e-12) - 1,
        "single_seconds": whole.estimates.seconds[1],
    }
    return Decision("replicas", replicas, why, facts=facts)
