"""Which prompt nodes of the forest hold KV: taken when first needed, kept while in use, given up when nothing needs it.

Life of a node:  absent -> taken (pages, `held` grows as its tokens are computed) -> released (the last sample below is
done) or evicted (not in use and the pool is short; it will be taken and computed again). A forest that is to `retain`
releases nothing by itself: it is a prefix cache as servers have it, which cannot know that nobody will come.
"""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from umbel.cache.pages import PagePool
from umbel.ir.forest import Forest
from umbel.ir.growable import Growable

Ints = NDArray[np.int64]


class KVForest(Growable):
    """KV state of every node: `held` tokens, `users` (running samples below), `waiting` (samples not done yet).

    `samples_per_row` (`[rows]`) is 0 for rows that will not run. `forest` are the forests of all rows that were added,
    side by side: numbers of nodes and rows go on from one to the next. Of the nodes not in use, the one needed last is
    evicted first: the highest number, where rows run in the forest's order. Where they do not (`recent`), or where
    nodes stay though nobody waits for them (`retain`), it is the one used least recently, of a path its deeper end.
    For steps, which read many nodes at once, the pages of node n stand in `table` from `first_page[n]` on as well;
    `changes` counts how often the set of nodes in use became another.
    """

    held: Ints
    sizes: Ints  # pages of each node
    first_page: Ints
    table: NDArray[np.int32]
    _is_used: NDArray[np.bool_]
    _parent: Ints

    def __init__(
        self,
        forest: Forest,
        samples_per_row: Ints,
        pool: PagePool,
        *,
        recent: bool = False,
        retain: bool = False,
    ):
        super().__init__()
        self.forest = Forest.empty()
        self.pool = pool
        # Lists where single entries are read and changed for every sample: several times faster than arrays there.
        self.parent: list[int] = []
        self.length: list[int] = []
        self.users: list[int] = []
        self.waiting: list[int] = []
        self.pages: dict[int, Ints] = {}
        self.in_use: dict[int, None] = {}  # nodes with users, an ordered set
        self.changes = 0
        # Nodes in use when somebody asked last, ascending; those that came since; whether any came or left.
        self._sorted, self._joined, self._stale = np.zeros(0, np.int64), list[int](), False
        self.idle_pages = 0  # pages of nodes without users
        self._recent, self._retain = recent or retain, retain
        self._idle: dict[int, int] = {}  # nodes that hold pages without users -> their key in the heap
        self._heap: list[tuple[int, int]] = []  # (key, node), lowest key evicted first; entries may be stale
        self._clock = 0
        self.graft(forest, samples_per_row)

    def graft(self, forest: Forest, samples_per_row: Ints) -> int:
        """One more forest, of rows that are added, behind the others; returns the number of its first node."""
        first, rows, n_new = self.forest.n_nodes, len(self.forest.leaf), forest.n_nodes
        sizes = -(-(forest.end - forest.start) // self.pool.page_size)
        n_pages = len(self.table) if first else 0
        self._grow(
            held=np.zeros(n_new, np.int64),
            sizes=sizes,
            first_page=n_pages + np.cumsum(sizes) - sizes,
            table=np.empty(int(sizes.sum()), np.int32),  # memory is touched where nodes have had pages
            _is_used=np.zeros(n_new, bool),
            _parent=np.where(forest.parent < 0, -1, forest.parent + first),
            _start=forest.start,
            _end=forest.end,
            _source=forest.source + rows,
            _subtree_end=forest.subtree_end + first,
            _rows_below=forest.rows_below,
            _leaf=forest.leaf + first,
            _order=forest.order + rows,
        )
        names = ("parent", "start", "end", "source", "subtree_end", "rows_below", "leaf", "order")
        self.forest = Forest(*(getattr(self, f"_{name}") for name in names))
        self.parent += self._parent[first:].tolist()
        self.length += (forest.end - forest.start).tolist()
        self.users += [0] * n_new
        self.waiting += _sum_below(forest, samples_per_row).tolist()
        return first

    def follow(self, *, recent: bool) -> None:
        """From now on nodes go by when they were used last, as rows do not run in the order of nodes."""
        self._recent |= recent

    def path(self, node: int) -> list[int]:
        """Nodes from the root down to `node`."""
        path = []
        while node >= 0:
            path.append(node)
            node = self.parent[node]
        path.reverse()
        return path

    def nodes_in_use(self) -> Ints:
        """Nodes with users, ascending."""
        if self._stale:
            nodes = np.sort(np.concatenate([self._sorted, np.array(self._joined, np.int64)]))
            once = np.diff(nodes, prepend=-1) > 0  # one that left and came back is there twice
            self._sorted, self._joined, self._stale = nodes[once & self._is_used[nodes]], [], False
        return self._sorted

    def pages_missing(self, path: list[int]) -> int:
        """Pages that must be taken before every node of `path` can be computed."""
        return sum(self.pool.pages_for(self.length[n]) for n in path if n not in self.pages)

    def reclaimable(self, path: list[int]) -> int:
        """Pages that can be had for work on `path`: the free ones, and idle nodes' outside the path."""
        kept = sum(len(self.pages[n]) for n in path if n in self._idle)
        return self.pool.free + self.idle_pages - kept

    def pin(self, path: list[int]) -> None:
        """Start using a path: its nodes get pages and stay until `unpin`. The caller has checked `reclaimable`."""
        for node in path:
            if self.users[node] == 0:
                self.in_use[node] = None
                self._joined.append(node)
                self._note_use(node, used=True)
                if self._idle.pop(node, None) is not None:
                    self.idle_pages -= len(self.pages[node])
            self.users[node] += 1
        for node in path:
            if node not in self.pages:
                count = self.pool.pages_for(self.length[node])
                self.make_room(count)
                self.pages[node] = pages = self.pool.take_run(count)
                first = int(self.first_page[node])
                self.table[first : first + count] = pages

    def unpin(self, path: list[int], *, done: bool) -> None:
        """Stop using a path, for good when the sample is `done`; nodes nobody waits for give their pages back."""
        self._clock += len(path)
        for depth, node in enumerate(path):
            self.users[node] -= 1
            self.waiting[node] -= done
            if self.users[node] == 0:
                del self.in_use[node]
                self._note_use(node, used=False)
                # The plan walks the forest in node order, so the highest number is the one needed last.
                self._rest(node, self._clock - depth if self._recent else -node)

    def skip(self, path: list[int]) -> None:
        """A sample below `path` will never run (its row failed before it started)."""
        for node in path:
            self.waiting[node] -= 1
            if self.waiting[node] == 0 and node in self._idle and not self._retain:
                self._evict(node)

    def make_room(self, count: int) -> bool:
        """Evict idle nodes until `count` pages are free; False if that is not enough."""
        while self.pool.free < count and self._heap:
            key, node = heapq.heappop(self._heap)
            if self._idle.get(node) == key:
                self._evict(node)
        return self.pool.free >= count

    def _note_use(self, node: int, *, used: bool) -> None:
        self._is_used[node] = used
        self._stale = True
        self.changes += 1

    def _rest(self, node: int, key: int) -> None:
        if self.waiting[node] == 0 and not self._retain:
            self._drop(node)
        else:
            self.idle_pages += len(self.pages[node])
            self._idle[node] = key
            heapq.heappush(self._heap, (key, node))

    def _evict(self, node: int) -> None:
        self.idle_pages -= len(self.pages[node])
        del self._idle[node]
        self._drop(node)

    def _drop(self, node: int) -> None:
        self.pool.give(self.pages.pop(node))
        self.held[node] = 0


def _sum_below(forest: Forest, per_row: Ints) -> Ints:
    """Sum a figure of the rows over each node's subtree (`[nodes]`); subtrees are ranges, so prefix sums do it."""
    at_leaf = np.zeros(forest.n_nodes + 1, np.int64)
    np.add.at(at_leaf, forest.leaf + 1, per_row)
    total = np.cumsum(at_leaf)
    return total[forest.subtree_end] - total[:-1]
