"""Cuts a planned forest into rows for replicas: whole subtrees, the costliest first to the replica that has least.

Longest processing time first (Graham, SIAM J. Appl. Math. 1969), with the twist that a subtree cut at its children
makes every replica that gets some of them compute the run above: that is priced, and cut only where it pays. Sending
prompts where their prefix lies, unless that leaves devices idle, is Preble's idea (2407.00023) for rows that arrive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umbel.ir.forest import Forest
from umbel.ir.plan import Plan
from umbel.plan.deal.fit import token_prices
from umbel.plan.forest.regroup import sum_below
from umbel.plan.passes.prefix import sum_above

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

CUTS = (np.inf, 1.0, 0.5, 0.25, 0.125)  # fair shares above which subtrees are cut; the first that nothing beats
FINEST = 64  # neighbours are dealt out together up to a fair share by this: so few pieces leave little imbalance
MAX_DEPTH = 64  # runs above a piece that are looked at; a deeper subtree goes as one


@dataclass(frozen=True, slots=True)
class Pieces:
    """Ranges `begin:stop` of a forest's order: subtrees, rows that end at one node, or neighbours of these.

    `begin`, `stop`: `[pieces]`.
    `seconds`: `[pieces]`, without the runs above.
    `above`: `[pieces]`, the node that continues there (-1: none).
    """

    begin: Ints
    stop: Ints
    seconds: Floats
    above: Ints


@dataclass(frozen=True, slots=True)
class Share:
    """The rows of a replica in the plan's order, and where they may be cut.

    `rows`: `[rows]`.
    `stops`: `[pieces]`, the place in `rows` behind each piece: a subtree, or several that stand side by side.
    `seconds`: `[pieces]`, expected.
    """

    rows: Ints
    stops: Ints
    seconds: Floats


@dataclass(frozen=True, slots=True)
class Placement:
    """The share of each replica, and what it is expected to take: `seconds` and prompt `tokens` (`[replicas]`); of the
    seconds `recomputed` are those of runs that a replica before computes as well."""

    shares: tuple[Share, ...]
    seconds: Floats
    tokens: Ints
    recomputed: float
    largest: float  # seconds of the largest piece with all above it: no share is further above the mean

    @property
    def makespan(self) -> float:
        """Seconds until the last replica is done, at the prices that the shares were cut by."""
        return float(self.seconds.max(initial=0.0))


def place(plan: Plan, samples: Ints, replicas: int) -> Placement:
    """Distribute the rows of a plan over replicas; rows that another row answers go with it. `samples` (`[rows]`) are
    the completions asked for."""
    forest = plan.forest
    token, drawn = token_prices(plan.estimates.curve)
    run_seconds = ((forest.end - forest.start) * token).astype(np.float64)
    row_seconds = ((samples * plan.lengths)[forest.order] * drawn).astype(np.float64)
    total = float(run_seconds.sum() + row_seconds.sum())
    scale = plan.estimates.seconds[1] / total if total else 1.0
    run_seconds, row_seconds = run_seconds * scale, row_seconds * scale
    once = float(run_seconds.sum() + row_seconds.sum())
    fair = once / replicas
    best: _Dealt | None = None
    for share in CUTS:
        pieces = cut(forest, run_seconds, row_seconds, fair * share, fair / FINEST)
        dealt = deal(forest, run_seconds, pieces, replicas)
        if best is None or dealt.height < best.height * (1 - 1e-9):
            best = dealt
    assert best is not None
    return best.placement(plan, once)


def cut(forest: Forest, run_seconds: Floats, row_seconds: Floats, limit: float, least: float) -> Pieces:
    """The largest subtrees of at most `limit` seconds, neighbours below one node put together up to `least`.

    `run_seconds` (`[nodes]`) is what a node's own tokens take, `row_seconds` (`[rows in order]`) a row's answer.
    """
    order, depth = forest.order, sum_above(forest, np.ones(forest.n_nodes, np.int64))
    ends = np.bincount(forest.leaf[order], minlength=forest.n_nodes)
    first = np.cumsum(ends) - ends  # place in the order of each node's first row
    last = first + forest.rows_below
    below = _sums(run_seconds, forest.subtree_end) + _between(row_seconds, first, last)
    opened = (below > limit) & (forest.rows_below > 1) & (depth <= MAX_DEPTH)
    whole = np.flatnonzero(~opened & ((forest.parent < 0) | opened[forest.parent]))
    alone = np.flatnonzero(opened[forest.leaf[order]])  # rows that end at a node which was cut
    begin, stop = np.concatenate([first[whole], alone]), np.concatenate([last[whole], alone + 1])
    seconds = np.concatenate([below[whole], row_seconds[alone]])
    above = np.concatenate([forest.parent[whole], forest.leaf[order[alone]]])
    turn = np.argsort(begin)
    return _together(Pieces(begin[turn], stop[turn], seconds[turn], above[turn]), least)


def _together(pieces: Pieces, least: float) -> Pieces:
    """Neighbours below the same node as one piece, up to `least` seconds besides the last of them."""
    if not len(pieces.begin):
        return pieces
    before = np.cumsum(pieces.seconds) - pieces.seconds
    step = np.floor(before / least) if least > 0 else np.arange(len(before))
    new = (np.diff(pieces.above, prepend=-2) != 0) | (np.diff(step, prepend=-1) != 0)
    at = np.flatnonzero(new)
    stop = np.append(at[1:], len(new)) - 1
    return Pieces(pieces.begin[at], pieces.stop[stop], np.add.reduceat(pieces.seconds, at), pieces.above[at])


@dataclass(slots=True)
class _Dealt:
    """Pieces in bins: the `bin` of each piece, and the seconds and tokens of each bin."""

    forest: Forest
    pieces: Pieces
    bin: Ints
    seconds: Floats
    tokens: Ints
    largest: float

    @property
    def height(self) -> float:
        """How full the fullest bin is."""
        return float(self.seconds.max(initial=0.0))

    def placement(self, plan: Plan, once: float) -> Placement:
        """The bins as shares of rows, twins after the rows that answer for them; `once` are the seconds of all with
        each run computed once."""
        pieces, order = self.pieces, self.forest.order
        place = np.empty(len(plan.same_as), np.int64)
        place[order] = np.arange(len(order))
        place = place[plan.same_as]
        of_place = np.repeat(np.arange(len(pieces.begin)), pieces.stop - pieces.begin)
        turn = np.lexsort((np.arange(len(place)), place))
        piece = of_place[place[turn]] if len(place) else place
        owner = self.bin[piece]
        shares = tuple(self._share(turn[owner == b], piece[owner == b]) for b in range(len(self.seconds)))
        again = float(self.seconds.sum()) - once
        return Placement(shares, self.seconds, self.tokens, max(again, 0.0), self.largest)

    def _share(self, rows: Ints, piece: Ints) -> Share:
        """A bin's rows, each of a `piece` (`[rows]`); what lies above pieces counts with none of them."""
        last = np.flatnonzero(np.diff(piece, append=-1) != 0)
        return Share(rows, last + 1, self.pieces.seconds[piece[last]])


def deal(forest: Forest, run_seconds: Floats, pieces: Pieces, bins: int) -> _Dealt:
    """Put the costliest piece first, each into the one of so many bins that is then least full.

    A bin that gets the first piece below a run which was cut computes that run as well.
    """
    run_tokens = forest.end - forest.start
    seconds, tokens = np.zeros(bins), np.zeros(bins, np.int64)
    held: list[set[int]] = [set() for _ in range(bins)]
    bin_of, largest = np.zeros(len(pieces.begin), np.int64), 0.0
    own = _piece_tokens(forest, pieces)
    for i in np.argsort(-pieces.seconds, kind="stable").tolist():
        path = _path(forest, int(pieces.above[i]))
        missing = [[node for node in path if node not in has] for has in held]
        added = np.array([pieces.seconds[i] + run_seconds[nodes].sum() for nodes in missing])
        b = int((seconds + added).argmin())
        bin_of[i] = b
        seconds[b] += added[b]
        tokens[b] += own[i] + run_tokens[missing[b]].sum()
        held[b].update(path)
        largest = max(largest, float(pieces.seconds[i] + run_seconds[path].sum()))
    return _Dealt(forest, pieces, bin_of, seconds, tokens, largest)


def _path(forest: Forest, node: int) -> list[int]:
    """A node and all nodes above it."""
    path = []
    while node >= 0:
        path.append(node)
        node = int(forest.parent[node])
    return path


def _piece_tokens(forest: Forest, pieces: Pieces) -> Ints:
    """Prompt tokens of each piece, without what lies above it."""
    ends = np.bincount(forest.leaf[forest.order], minlength=forest.n_nodes)
    first = np.cumsum(ends) - ends  # place in the order of each node's first row
    at = np.searchsorted(pieces.begin, first, "right") - 1
    size = np.where(_is_above(forest, pieces), 0, forest.end - forest.start)
    return np.bincount(at, size, len(pieces.begin)).astype(np.int64)


def _is_above(forest: Forest, pieces: Pieces) -> NDArray[np.bool_]:
    """Whether each node is continued by a piece, or lies above such a node (`[nodes]`)."""
    named = np.zeros(forest.n_nodes, np.int64)
    named[pieces.above[pieces.above >= 0]] = 1
    return np.asarray(sum_below(named, forest.subtree_end) > 0)


def _sums(values: Floats, subtree_end: Ints) -> Floats:
    """The sum of `values` over the subtree of each node."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    return np.asarray(total[subtree_end] - total[:-1])


def _between(values: Floats, begin: Ints, stop: Ints) -> Floats:
    """The sum of each `values[begin:stop]`."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    return np.asarray(total[stop] - total[begin])
