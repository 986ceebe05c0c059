"""The order of a template's lines by which the prompts of a table share most.

Rows share what stands first and is equal. Which line comes where is the template's choice, not the data's: "Optimizing
LLM Queries in Relational Data Analytics" (GGR, 2403.05821) and SOLO choose it for the sharing. Here all rows have one
order, and for up to EXACT lines it is the best one there is: what a line costs depends only on which lines stand before
it, not on their order, so that the best order of a set of lines ends with one of them behind the best of the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umbel.plan.document_order import DocumentTree, Piece, RowDocuments, document_tree

Ints = NDArray[np.int64]
Digests = NDArray[np.uint64]
Block = tuple[int, ...]

LEAST_SAVED = 0.01  # of all characters: what another order must save for `auto` to take it, and for plans to say so
EXACT = 8  # lines of a block whose sets are all looked at; of more, the line that saves most comes next


@dataclass(frozen=True, slots=True)
class TemplateOrder:
    """The lines of a template in the order that shares most.

    `order`: their numbers. `total`: characters of all rows. `written`, `computed`: of these, those that are computed
    where lines stand as they were written, and in this order, when rows share equal lines from the first on.
    `documents`: the order of documents in their line, where it has one. `apart`: those that are computed where lines
    stand as they were written and each document is computed once, alone (None: there are none).
    """

    order: Block
    total: int
    written: int
    computed: int
    documents: DocumentTree | None = None
    apart: int | None = None

    @property
    def saved_share(self) -> float:
        """The share of all characters that this order computes no more."""
        return (self.written - self.computed) / self.total if self.total else 0.0


@dataclass(frozen=True, slots=True)
class LayoutChoice:
    """What became of a template's lines by a rule.

    `columns`: those of the lines in the order that shares most. `taken`: whether prompts have it.
    """

    rule: str
    columns: tuple[str, ...]
    taken: bool
    layout: TemplateOrder

    def text(self) -> str:
        """The order and what it saves, for people; "" where there is nothing to say."""
        if not self.taken and self.layout.saved_share < LEAST_SAVED:
            return "" if self.rule == "off" else f"--layout {self.rule}: the lines of --prompt stay as they are written"
        order = ", ".join(f"{{{name:.40}}}" for name in self.columns)
        order += "" if self.layout.documents is None else ", documents by the rows that share them"
        new, old = (part / self.layout.total for part in (self.layout.computed, self.layout.written))
        shares = f"about {new:.0%} of prompts are computed, {old:.0%} as --prompt is written"
        return f"lines in the order {order}: {shares}" if self.taken else f"--layout auto: order {order}: {shares}"

    def reuse_text(self, prompt_tokens: int) -> str:
        """What documents that are computed once would save of so many tokens of prompts; "" where that is little."""
        of, apart = self.layout, self.layout.apart
        if apart is None or (min(of.written, of.computed) - apart) / max(of.total, 1) < LEAST_SAVED:
            return ""
        plain, best, once = (part / of.total * prompt_tokens for part in (of.written, of.computed, apart))
        ordered = f", {best:,.0f} in the order that shares most" if of.computed < of.written else ""
        lossy = "computed once each, which may change answers (--technique turbo-rag --allow-lossy)"
        return f"{lossy}: about {once:,.0f} prompt tokens to compute{ordered}, {plain:,.0f} as they come"

    def to_json(self) -> dict[str, Any]:
        """Rule, columns, whether it is taken, and the characters that are computed either way."""
        found = {"rule": self.rule, "columns": list(self.columns), "taken": self.taken, "text": self.text()}
        found["documents"] = self.layout.documents is not None
        return found | {name: getattr(self.layout, name) for name in ("total", "written", "computed", "apart")}


def best_layout(
    digests: Digests, lengths: Ints, blocks: Sequence[Block], documents: RowDocuments | None = None
) -> TemplateOrder:
    """The order of the lines of some rows. Lines of a block change places with one another only; blocks, which hold
    every line once, stay in their order.

    `digests`: `[rows, lines]`, equal where a line's text is equal, and of no two lines alike; where a line differs in
    the order of its `documents` only, it is equal.
    `lengths`: `[rows, lines]`, in characters.
    `documents`: get an order, too, in which rows share single ones.
    """
    table, order = _Table(_mixed(digests), lengths), list[int]()
    for block in blocks:
        order += _ordered(table, frozenset(order), block)
    as_written = [line for block in blocks for line in block]
    if documents is not None:
        return _with_documents(table, (order, _ahead(order, blocks, documents.line)), as_written, documents)
    return TemplateOrder(tuple(order), int(lengths.sum()), table.computed(as_written), table.computed(order))


def _ahead(order: Sequence[int], blocks: Sequence[Block], line: int) -> list[int]:
    """The order with a line before the others of its block."""
    (block,) = (set(block) for block in blocks if line in block)
    first, rest = min(order.index(one) for one in block), [one for one in order if one != line]
    return [*rest[:first], line, *rest[first:]]


def _with_documents(
    table: _Table, orders: Sequence[Sequence[int]], as_written: Sequence[int], documents: RowDocuments
) -> TemplateOrder:
    """The best of some orders of the lines, with the documents as they come or in the order of their tree."""
    tree = document_tree(documents)
    rows = [[row[at] for at in tree.order(row)] for row in documents.rows]
    written = _computed(table, as_written, documents, documents.rows)
    tried: list[tuple[int, int, Sequence[int], DocumentTree | None]] = [(written, 0, as_written, None)]
    tried += [(_computed(table, one, documents, documents.rows), 1, one, None) for one in orders]
    tried += [(_computed(table, one, documents, rows), 2, one, tree) for one in orders]
    computed, _, order, taken = min(tried, key=lambda one: one[:2])
    free = replace(documents, lengths=dict.fromkeys(documents.lengths, 0))
    apart = _computed(table, as_written, free, free.rows) + sum(documents.lengths.values())
    return TemplateOrder(tuple(order), int(table.lengths.sum()), written, computed, taken, apart)


def _computed(table: _Table, order: Sequence[int], documents: RowDocuments, rows: Sequence[Sequence[int]]) -> int:
    """Characters that are computed in an order of the lines when rows also share single documents: those of a trie."""
    nodes, place, total = dict[tuple[int, int], int](), list(order).index(documents.line), 0
    digests, lengths = table.digests[:, list(order)].tolist(), table.lengths[:, list(order)].tolist()
    for at, row in enumerate(rows):
        pieces: list[Piece] = list(zip(digests[at], lengths[at], strict=True))
        texts = [(one, documents.lengths[one]) for one in row]
        pieces[place : place + 1] = [documents.heads[at], *texts, documents.tails[at]]
        node = 0
        for digest, length in pieces:
            total += 0 if (node, digest) in nodes else length
            node = nodes.setdefault((node, digest), len(nodes) + 1)
    return total


@dataclass(frozen=True, slots=True)
class _Table:
    digests: Digests
    lengths: Ints

    def costs(self, lines: Iterable[int]) -> Ints:
        """For each line of the template, its characters in rows that differ in some of `lines`: what it costs as the
        last of these (`[lines]`). The digest of a set of lines is the sum of theirs (Zobrist)."""
        together = self.digests[:, sorted(lines)].sum(1, dtype=np.uint64)
        first = np.unique(together, return_index=True)[1]
        return np.asarray(self.lengths[first].sum(0), np.int64)

    def computed(self, order: Sequence[int]) -> int:
        """Characters that are computed in this order."""
        return sum(int(self.costs(order[: at + 1])[line]) for at, line in enumerate(order))


def _mixed(digests: Digests) -> Digests:
    """Digests of which sums are equal by chance only (the last steps of splitmix64): those of Python are not."""
    mixed = (digests ^ digests >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ mixed >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ mixed >> np.uint64(31), np.uint64)


def _ordered(table: _Table, before: frozenset[int], block: Block) -> Block:
    if len(block) < 2:
        return block
    return _best(table, before, block) if len(block) <= EXACT else _greedy(table, before, block)


def _best(table: _Table, before: frozenset[int], block: Block) -> Block:
    """The cheapest order of a block, by sets: best[set] is what its lines cost, and their order. Of equal ones, the
    order as written."""
    best: dict[int, tuple[int, Block]] = {0: (0, ())}
    for chosen in range(1, 1 << len(block)):
        members = [i for i in range(len(block)) if chosen >> i & 1]
        costs = table.costs(before | {block[i] for i in members})
        ended = [(best[chosen ^ 1 << i][0] + int(costs[block[i]]), -i) for i in members]
        cost, last = min(ended)
        best[chosen] = (cost, (*best[chosen ^ 1 << -last][1], block[-last]))
    return best[(1 << len(block)) - 1][1]


def _greedy(table: _Table, before: frozenset[int], block: Block) -> Block:
    """The line that saves most comes next, until none is left."""
    order, left, totals = list[int](), list(block), table.lengths.sum(0)
    while left:
        saved = [int(totals[line] - table.costs(before | {*order, line})[line]) for line in left]
        order.append(left.pop(saved.index(max(saved))))
    return tuple(order)
