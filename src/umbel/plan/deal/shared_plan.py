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
from umbel.plan.deal.placement import Placement, Share, place

Ints = NDArray[np.int64]
SHOWN = 8  # replicas whose rows are listed
OF_EACH = ("chunk", "kv_tokens", "admission")  # decisions that are about one replica


@dataclass(frozen=True, slots=True)
class PlannedShare:
    """What a replica is expected to do: `subtrees` of the forest, or neighbouring ones put together, with so many
    `rows`, prompt `tokens` that it computes, and `seconds`."""

    rows: int
    subtrees: int
    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class SharedPlan(Plan):
    """The plan of a whole input with the share of each replica, dealt in lots of `least` expected seconds or more.

    `planned`: the figures of each share; the longest takes the seconds of the plan.
    `recomputed_tokens`, `recomputed_seconds`: what is computed in more than one of them, beyond the first.

    Forest, order and groups are those of the whole, `kv_tokens` and `chunk` those of one replica. Steps and tokens
    computed are estimated over all replicas, seconds for the one that is expected to take longest.
    """

    shares: tuple[Share, ...] = ()
    least: float = 0.0
    planned: tuple[PlannedShare, ...] = ()
    recomputed_tokens: int = 0
    recomputed_seconds: float = 0.0

    @property
    def idle_seconds(self) -> tuple[float, ...]:
        """Of each replica, how long it has nothing to do before the last one is through, as the shares are."""
        last = max((share.seconds for share in self.planned), default=0.0)
        idle = (last - share.seconds for share in self.planned)
        return tuple(seconds if seconds > 1e-9 * last else 0.0 for seconds in idle)  # sums in another order differ


def plan_replicas(
    workload: Workload,
    replicas: int,
    make: Callable[[Workload], Plan],
    *,
    whole: Plan | None = None,
    mixed: bool = False,
) -> SharedPlan:
    """Plan a workload for equal replicas; `make` plans one of them, and the `whole` for one, where that is not known
    yet. They may be `mixed`, of several kinds of machines. Raises what `make` raises."""
    whole = whole or make(workload)
    samples = Distinct.of(workload.params).column(lambda p: p.n)
    placement = place(whole, samples, replicas)
    longest = placement.shares[int(placement.seconds.argmax())].rows
    part = make(select_rows(workload, longest)) if len(longest) < len(workload) else whole
    shared = SharedPlan(**{f.name: getattr(whole, f.name) for f in fields(Plan)}, shares=placement.shares)
    decision = _decision(whole, placement)
    own = {d.name: d for d in part.decisions if d.name in OF_EACH}
    return replace(
        shared,
        planned=_planned(placement, part.estimates.seconds[1]),
        recomputed_tokens=int(placement.tokens.sum()) - whole.forest.n_tokens,
        recomputed_seconds=placement.recomputed * _scale(placement, part.estimates.seconds[1]),
        lossy=(*whole.lossy, *(("mixed replicas",) if mixed else ())),
        kv_tokens=part.kv_tokens,
        chunk=part.chunk,
        least=_least(part, samples[longest], float(placement.seconds.max(initial=0.0))),
        decisions=(*(own.get(d.name, d) for d in whole.decisions), decision),
        estimates=_estimates(whole, part, placement),
    )


def _planned(placement: Placement, longest: float) -> tuple[PlannedShare, ...]:
    """The figures of each share, of which the longest takes so many seconds."""
    scale = _scale(placement, longest)
    columns = (placement.shares, placement.tokens.tolist(), placement.seconds.tolist())
    return tuple(
        PlannedShare(len(share.rows), len(share.stops), tokens, seconds * scale)
        for share, tokens, seconds in zip(*columns, strict=True)
    )


def _scale(placement: Placement, longest: float) -> float:
    """Seconds of the plan of a share for each second that shares were cut by: a smaller batch takes longer."""
    return longest / placement.makespan if placement.makespan else 1.0


def _least(part: Plan, samples: Ints, seconds: float) -> float:
    """Expected seconds of a lot that fills the batch of a replica: its share takes `seconds` and has `samples`."""
    running = float(part.estimates.curve.running.max(initial=0.0))
    return seconds * min(running / max(float(samples.sum()), 1.0), 1.0)


def _estimates(whole: Plan, part: Plan, placement: Placement) -> Estimates:
    """Estimates: tokens of the whole, steps as if all replicas took as many as the longest, seconds and memory of the
    longest."""
    of_all, of_one, replicas = whole.estimates, part.estimates, len(placement.shares)
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
    replicas = len(placement.shares)
    *counts, last = [f"{len(share.rows):,}" for share in placement.shares[:SHOWN]]
    listed = f"{', '.join(counts)} and {last}" if replicas <= SHOWN else f"{', '.join([*counts, last])}, ..."
    why = (
        "{rows} rows, by subtrees of the forest, in lots; {recomputed_tokens:,} prompt tokens are computed again for "
        "it; the longest part is {uneven:.1%} above the mean, and the seconds are its own; one replica alone would "
        "take {single_seconds:.3g} s"
    )
    facts: dict[str, Fact] = {
        "rows": listed,
        "recomputed_tokens": int(placement.tokens.sum()) - whole.forest.n_tokens,
        "uneven": placement.makespan * replicas / max(float(placement.seconds.sum()), 1e-12) - 1,
        "single_seconds": whole.estimates.seconds[1],
    }
    return Decision("replicas", replicas, why, facts=facts)
