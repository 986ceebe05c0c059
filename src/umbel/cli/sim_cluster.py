"""What `umbel sim --replicas` prints of a cluster."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from umbel.sim.case import SimCase
    from umbel.sim.cluster.nodes import Node
    from umbel.sim.cluster.run import ClusterOutcome

SHOWN = 8  # replicas that have a line of their own


def cluster_text(case: SimCase, nodes: Sequence[Node], *, as_json: bool) -> str:
    """Run a case on these nodes; a table, or an object of JSON."""
    from umbel.sim.cluster.run import run_cluster

    found = run_cluster(case, nodes)
    if as_json:
        return json.dumps({k: None if v == math.inf else v for k, v in found.as_dict().items()}, indent=2)
    return "\n".join([*_facts(case, found), "", *_lines(nodes, found)])


def _facts(case: SimCase, found: ClusterOutcome) -> list[str]:
    again = found.computed_prompt_tokens - found.distinct_prompt_tokens
    lines = [
        f"{found.rows:,} rows on {found.replicas:,} replicas; {case.machine.name}, {case.price.dtype}",
        f"{found.answered:,} answered in {found.seconds:,.2f} s; one replica takes {found.one_node_seconds:,.2f} s",
    ]
    if 0 < found.least_seconds < math.inf:
        over = found.seconds / found.least_seconds - 1
        lines.append(f"the speeds together allow {found.least_seconds:,.2f} s: {over:.1%} above; {found.idle:.1%} idle")
    lines.append(f"{found.lots:,} lots, {found.stolen_lots:,} stolen; {again:,} prompt tokens computed again")
    if found.doubled_rows:
        lines.append(f"{found.doubled_rows:,} rows of slow replicas run by others as well")
    if found.left or found.given_up:
        lines.append(f"{found.left:,} rows left without a replica, {found.given_up:,} given up")
    return lines


def _lines(nodes: Sequence[Node], found: ClusterOutcome) -> list[str]:
    lines = [f"{'replica':>7}{'speed':>8}{'comes':>10}{'goes':>10}{'rows':>12}{'busy s':>12}"]
    for i, node in list(enumerate(nodes))[:SHOWN]:
        goes = "" if node.goes == math.inf else f"{node.goes:,.4g}"
        line = f"{i:>7}{node.speed:>8.3g}{node.comes:>10,.4g}{goes:>10}"
        lines.append(f"{line}{found.rows_of_replicas[i]:>12,}{found.seconds_of_replicas[i]:>12,.2f}")
    return [*lines, *(["    ..."] if len(nodes) > SHOWN else [])]
