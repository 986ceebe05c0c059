"""The forest cut down to a readable size: the branches that save most, each with the lesser ones in one line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umbel.ir.forest import Forest
from umbel.ir.plan import Plan

Ints = NDArray[np.int64]

MAX_BRANCHES = 5  # branches shown below one node; the rest is summed up in one line
MAX_DEPTH = 4
LEAST_SHARE = 0.02  # branches that save less than this share of the whole saving are summed up


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the tree, a parent before its children.

    `kind`: "run" (tokens that rows share), "end" (rows whose prompts end with their parent's run), "own" (rows that
        share no more) or "rest" (the lesser branches).
    `parent`: the place of the line above (-1: none).
    `node`: the forest's node of a run (-1 otherwise).
    `end`: where a run ends in its prompts.
    `tokens`: computed once, in this run or in all of the branches (own, rest).
    `rows`: the rows below the line, twins included.
    `branches`: how many branches the line sums up.
    `saved`: prompt tokens that need no computing because of it.
    """

    kind: str
    parent: int
    node: int
    end: int
    tokens: int
    rows: int
    branches: int
    saved: int


def shown_lines(plan: Plan) -> tuple[Line, ...]:
    """The tree of a plan: at most about 50 runs, as each is worth a 50th of the saving, and two more lines for each."""
    lines: list[Line] = []
    _grow(lines, _Sums.of(plan.forest), -1, -1, 0)
    return tuple(lines)


def _grow(lines: list[Line], sums: _Sums, node: int, at: int, depth: int) -> None:
    """Append the lines below a node (-1: all roots), whose line is `at`; never deeper than MAX_DEPTH."""
    kids, shown = sums.kids(node, depth)
    lines.extend(sums.ending(node, at, kids))
    for kid in shown:
        lines.append(sums.run(kid, at))
        _grow(lines, sums, kid, len(lines) - 1, depth + 1)
    lines.extend(sums.others(at, np.setdiff1d(kids, shown)))


def lines_of_rows(forest: Forest, lines: tuple[Line, ...]) -> NDArray[np.int16]:
    """The place of the deepest line that counts each row (`[rows]`); the lines above count it too."""
    rest = {line.parent: i for i, line in enumerate(lines) if line.kind in ("own", "rest")}
    ending = {line.parent: i for i, line in enumerate(lines) if line.kind == "end"}
    at_node = np.full(forest.n_nodes, rest.get(-1, -1), np.int16)
    for i, line in enumerate(lines):
        if line.kind == "run":
            at_node[line.node : forest.subtree_end[line.node]] = rest.get(i, i)
            at_node[line.node] = ending.get(i, i)
    return at_node[forest.leaf]


@dataclass(frozen=True, slots=True)
class _Sums:
    """Sums over the nodes: tokens of each run (`size`) and what they save (`saving`); `rows`, `tokens` and `saved` of
    each subtree."""

    forest: Forest
    size: Ints
    saving: Ints
    rows: Ints
    tokens: Ints
    saved: Ints
    total: int

    @classmethod
    def of(cls, forest: Forest) -> _Sums:
        """The sums of a forest: subtrees are ranges, so running sums give their totals; rows that another one answers
        count as well."""

        def below(values: Ints) -> Ints:
            total = np.concatenate((np.zeros(1, np.int64), np.cumsum(values)))
            return np.asarray(total[forest.subtree_end] - total[:-1])

        size = forest.end - forest.start
        rows = below(np.bincount(forest.leaf, minlength=forest.n_nodes))
        saving = size * (rows - 1)
        return cls(forest, size, saving, rows, below(size), below(saving), int(saving.sum()))

    def kids(self, node: int, depth: int) -> tuple[Ints, list[int]]:
        """The children of a node (-1: the roots), and those few of them that save most, in plan order."""
        kids = np.flatnonzero(self.forest.parent == node)
        if depth >= MAX_DEPTH:
            return kids, []
        worth = kids[(self.rows[kids] > 1) & (self.saved[kids] >= LEAST_SHARE * self.total)]
        return kids, [int(n) for n in np.sort(worth[np.argsort(-self.saved[worth], kind="stable")[:MAX_BRANCHES]])]

    def run(self, node: int, at: int) -> Line:
        """The line of a shared run."""
        end, size, rows, saving = (int(v[node]) for v in (self.forest.end, self.size, self.rows, self.saving))
        return Line("run", at, node, end, size, rows, 1, saving)

    def ending(self, node: int, at: int, kids: Ints) -> Iterator[Line]:
        """The line of the rows that end at an inner node."""
        ends = int(self.rows[node] - self.rows[kids].sum()) if node >= 0 and len(kids) else 0
        if ends:
            yield Line("end", at, -1, int(self.forest.end[node]), 0, ends, 0, 0)

    def others(self, at: int, rest: Ints) -> Iterator[Line]:
        """The line that sums up the branches without a line of their own."""
        if len(rest):
            tokens, rows, saved = (int(v[rest].sum()) for v in (self.tokens, self.rows, self.saved))
            yield Line("own" if rows == len(rest) else "rest", at, -1, 0, tokens, rows, len(rest), saved)
