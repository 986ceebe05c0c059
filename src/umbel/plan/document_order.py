"""The order of the documents of rows by which their prompts share most.

Rows of a file that retrieves share documents, mostly not in the same places: what one row has first, another has third,
and only equal beginnings are computed once. Here a tree is shaped from the root on, as SOLO shapes one over rows and
columns: the document that saves most among the rows of a node comes first in all of them that have it, and they become
a node of their own; the others go on with the next one.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

Piece = tuple[int, int]  # a digest of a text, and its length in characters
Place = tuple[int, int]  # in which turn a document is chosen among the rows of a node, and the node below it


@dataclass(frozen=True, slots=True)
class RowDocuments:
    """The documents of some rows, which stand in one line of their template.

    `line`: its number. `heads`, `tails`: what stands before and behind them in that line, for each row.
    `rows`: digests of each row's documents, in the order in which they come. `lengths`: of each, in characters.
    """

    line: int
    heads: Sequence[Piece]
    tails: Sequence[Piece]
    rows: Sequence[Sequence[int]]
    lengths: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class DocumentTree:
    """What comes first among the documents of a row: `nodes[n]` has the documents that rows of node n may begin with.

    It is a function of the documents of a row as a set, so that equal ones have one order, also in rows that were not
    looked at when the tree was shaped.
    """

    nodes: tuple[dict[int, Place], ...]

    @property
    def digest(self) -> str:
        """Equal for trees by which all rows have equal orders."""
        return blake2b(repr(self.nodes).encode(), digest_size=8).hexdigest()

    def order(self, documents: Sequence[int]) -> list[int]:
        """The places of a row's documents in the order of the tree; those that save nothing come last, as they came."""
        left = {document: at for at, document in reversed(list(enumerate(documents)))}  # the first of equal ones
        node, taken = self.nodes[0], list[int]()
        while found := [(node[document], document) for document in left if document in node]:
            (_, below), document = min(found)
            taken.append(left.pop(document))
            node = self.nodes[below]
        return taken + sorted(set(range(len(documents))) - set(taken))


def document_tree(documents: RowDocuments) -> DocumentTree:
    """The tree that is shaped by what saves most: length times further rows. A document is counted once for each that
    stands above it in a row, so that it takes time in proportion to the documents of all rows times those of one."""
    nodes: list[dict[int, Place]] = [{}]
    todo = [(0, [list(dict.fromkeys(row)) for row in documents.rows])]
    while todo:
        number, rows = todo.pop()
        for document, inside in _turns(rows, documents.lengths):
            nodes[number][document] = (len(nodes[number]), len(nodes))
            todo.append((len(nodes), inside))
            nodes.append({})
    return DocumentTree(tuple(nodes))


def _turns(rows: Sequence[Sequence[int]], lengths: Mapping[int, int]) -> list[tuple[int, list[list[int]]]]:
    """The documents that more than one of the rows left to it has, in the order of what they save, with the documents
    that its rows have besides."""
    counts = Counter(document for row in rows for document in row)
    kept = [[document for document in row if counts[document] > 1] for row in rows]
    holders: dict[int, list[int]] = {}
    for at, row in enumerate(kept):
        for document in row:
            holders.setdefault(document, []).append(at)
    queue = [(-_saved(lengths, one, len(at)), place, one) for place, (one, at) in enumerate(holders.items())]
    heapq.heapify(queue)
    turns, gone = list[tuple[int, list[list[int]]]](), set[int]()
    while queue:
        saved, place, document = heapq.heappop(queue)
        now = _saved(lengths, document, counts[document])
        if counts[document] < 2:
            continue
        if now != -saved:
            heapq.heappush(queue, (-now, place, document))
            continue
        group = [at for at in holders[document] if at not in gone]
        gone.update(group)
        for at in group:
            counts.subtract(kept[at])
        turns.append((document, [[other for other in kept[at] if other != document] for at in group]))
    return turns


def _saved(lengths: Mapping[int, int], document: int, rows: int) -> int:
    return lengths[document] * (rows - 1)
