"""Every run of tokens that holds KV or will, as one growing tree: planned prompts first, then the tips of samples.

Life of a planned node: absent -> taken (pages, `held` grows as its tokens are computed) -> released (the last sample
below is done) or evicted (not in use and the pool is short; it will be taken and computed again). A tip is the node
that one sample grows as it decodes: it gets its pages one by one, and is gone with its sample.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from umbel.cache.idle import Idle
from umbel.cache.keep import Keep, LastReader
from umbel.cache.labels import Labels
from umbel.cache.memories import DRAWN, DRAWN_WHOLE, NEVER, Memories
from umbel.cache.page_table import PageTable
from umbel.cache.pages import PagePool
from umbel.cache.run_index import RunIndex
from umbel.cache.scored_runs import ScoredRuns
from umbel.cache.token_log import TokenLog
from umbel.ir.columns import Columns, lengthen

Ints = NDArray[np.int64]

_AT_ONCE = 64  # numbers that are made ready together where there are none


class KVTree(Columns):
    """Columns (`[nodes]`): `parent` (-1: a root), `start` (position of its first token), `length` (its tokens that are
    decided), `held` (those whose KV is there), `seen` (the most that ever were), `slot` (of the sample whose tip it is,
    -1 for a shared run), `scope` (of a root: whose KV it is, as in Workload), `drawn` (not 0: a sample drew its
    tokens, which holds for its tip and what becomes of that; 1 or DRAWN_WHOLE), `gone` (positions that were forgotten
    above, by which a token's place is less than its own), `edge` (the position that a tip is computed up to for now).

    Per node also `users` (running samples below, or its own) and `waiting` (samples not done yet): lists, as single
    entries are read and changed for every sample. `labels` put nodes into depth-first order. Counted are the `changes`
    of the set of nodes in use, `cuts` of tips, and `page_changes`: how often a tip got or lost pages.
    """

    _FILLS: ClassVar[dict[str, float]] = dict.fromkeys(("start", "length", "held", "seen", "scope", "drawn", "gone"), 0)
    _FILLS |= {"parent": -1, "slot": -1, "edge": NEVER}
    parent: Ints
    start: Ints
    length: Ints
    held: Ints
    seen: Ints
    slot: Ints
    scope: Ints
    drawn: Ints
    gone: Ints
    edge: Ints

    def __init__(self, pool: PagePool, keep: Keep | None = None):
        super().__init__(64)
        self.pool = pool
        self.labels = Labels(self.capacity)
        self.table = PageTable(self.capacity)
        self.tokens = TokenLog(self.capacity)
        self.idle = Idle(keep or LastReader(), self.labels)
        self.index: RunIndex | None = None
        self.scored = ScoredRuns()
        self.apart: Memories | None = None
        self.is_scoped = False  # whether a run ever had an adapter
        self.n_nodes = 0  # numbers given out so far; those of nodes that are gone are used again
        self._leaf, self._n_rows = np.zeros(0, np.int64), 0
        self.users, self.waiting = list[int](), list[int]()
        self.changes = self.cuts = self.page_changes = 0
        # Nodes in use when that was asked last, in order; those that came since; whether any came or left.
        self._sorted, self._joined, self._stale = np.zeros(0, np.int64), list[int](), False
        self._is_used = np.zeros(self.capacity, bool)
        self._free: list[int] = []  # numbers of nodes that are gone, or not there yet

    # -- what there is -------------------------------------------------------------------------------------------------

    @property
    def leaf(self) -> Ints:
        """The node where each row's prompt ends (`[rows]`)."""
        return self._leaf[: self._n_rows]

    @property
    def n_pages(self) -> Ints:
        """Pages that each node holds (`[nodes]`)."""
        return self.table.count

    def path(self, node: int) -> list[int]:
        """Nodes from the root down to `node`."""
        path, parent = [], self.parent.item
        while node >= 0:
            path.append(node)
            node = parent(node)
        path.reverse()
        return path

    def sizes(self, nodes: Ints) -> Ints:
        """Pages that nodes need for all their tokens."""
        return np.asarray(-(-self.length[nodes] // self.pool.page_size))

    def nodes_in_use(self) -> Ints:
        """Nodes with users, depth-first."""
        if self._stale:
            nodes = np.concatenate([self._sorted, np.array(self._joined, np.int64)])
            nodes = self.labels.order(nodes[self._is_used[nodes]])
            once = np.diff(nodes, prepend=-1) != 0  # one that left and came back is there twice
            self._sorted, self._joined, self._stale = nodes[once], [], False
        return self._sorted

    def runs_in_use(self) -> Ints:
        """Shared runs with users, depth-first."""
        nodes = self.nodes_in_use()
        return nodes[self.slot[nodes] < 0]

    def missing(self, nodes: Ints, more: Ints) -> Ints:
        """Pages that each of `nodes` lacks to hold `more` further tokens."""
        needed = -(-(self.held[nodes] + more) // self.pool.page_size)
        return np.asarray(np.maximum(needed - self.table.count[nodes], 0))

    def pages_missing(self, path: list[int]) -> int:
        """Pages that must be taken before every node of `path` can be computed."""
        count, length = self.table.count.item, self.length.item
        return sum(self.pool.pages_for(length(n)) for n in path if not count(n))

    def reclaimable(self, path: list[int]) -> int:
        """Pages that can be had for work on `path`: the free ones, and idle nodes' outside the path."""
        kept = sum(self.table.count.item(n) for n in path if n in self.idle)
        return self.pool.free + self.idle.pages - kept

    # -- how it grows --------------------------------------------------------------------------------------------------

    def grow(self, parent: int, slot: int, drawn: int = DRAWN) -> int:
        """A new tip below `parent`, of the sample in `slot`: without tokens, without pages, not in use."""
        node = self.number()
        self.parent[node], self.slot[node] = parent, slot
        self.start[node] = self.start.item(parent) + self.length.item(parent)
        self.length[node], self.drawn[node] = 0, drawn
        self.edge[node] = NEVER if drawn == DRAWN_WHOLE or not self.apart else self.apart.first_edge(self.start[node])
        self.labels.put(node, parent)
        self.users[node], self.waiting[node] = 0, 1
        return node

    def reserve(self, size: int) -> None:
        """Make room for at least `size` nodes."""
        super().reserve(size)
        self.labels.reserve(size)
        self.table.reserve(size)
        self.tokens.reserve(size)
        self._is_used = lengthen(self._is_used, self.capacity)

    def number(self) -> int:
        """The number of a node that is new; its columns are for the caller to fill."""
        if not self._free:
            self._free = self.numbers(_AT_ONCE)[::-1].tolist()
        return self._free.pop()

    def numbers(self, count: int) -> Ints:
        """Numbers of so many new nodes."""
        if count <= len(self._free):
            return np.array([self._free.pop() for _ in range(count)], np.int64)
        first = self.n_nodes
        self.n_nodes += count
        self.reserve(self.n_nodes)
        self.users += [0] * count
        self.waiting += [0] * count
        return np.arange(first, self.n_nodes)

    def add_rows(self, count: int, leaf: Ints | int) -> None:
        """More rows, whose prompts end in these nodes, or all in one."""
        old, self._n_rows = self._n_rows, self._n_rows + count
        self._leaf = lengthen(self._leaf, self._n_rows)
        self._leaf[old : self._n_rows] = leaf

    # -- samples come and go -------------------------------------------------------------------------------------------

    def enter(self, tip: int, path: list[int] | None = None) -> None:
        """A sample runs: its path is pinned (`path`, where the caller has it), and its tip may `take` pages."""
        self.pin(self.path(self.parent.item(tip)) if path is None else path)
        self.users[tip] = 1
        self.note_use(tip, used=True)

    def leave(self, tip: int, *, done: bool) -> None:
        """A sample stops, for good when it is `done`: the pages of its tip go back at once."""
        unpin = self.unpin if self.apart is None else self.apart.rejoin(tip)
        self.pool.give(self.table.cut(tip, 0))
        self.held[tip] = self.users[tip] = 0
        self.page_changes += 1
        self.note_use(tip, used=False)
        path = self.path(self.parent.item(tip))
        if done:
            self.forget(tip)
        unpin(path, done=done)

    def abandon(self, tip: int) -> None:
        """A sample that does not run at present will never go on."""
        path = self.path(self.parent.item(tip))
        self.forget(tip)
        self.skip(path)

    def pin(self, path: list[int]) -> None:
        """Start using a path: its nodes get pages and stay until `unpin`. The caller has checked `reclaimable`."""
        for node in path:
            if self.users[node] == 0:
                self.note_use(node, used=True)
                if node in self.idle:
                    self.idle.remove(node)
            self.users[node] += 1
        for node in path:
            if not self.table.count.item(node):
                count = self.pool.pages_for(self.length.item(node))
                self.make_room(count)
                self.table.put(node, self.pool.take_run(count))

    def unpin(self, path: list[int], *, done: bool) -> None:
        """Stop using a path, finally when the sample is `done`; nodes without waiting samples give their pages back."""
        moment = self.idle.tick(len(path))
        for depth, node in enumerate(path):
            self.users[node] -= 1
            self.waiting[node] -= done
            if self.users[node] == 0:
                self.note_use(node, used=False)
                self._rest(node, moment - depth)

    def skip(self, path: list[int]) -> None:
        """A sample below `path` will never run (its row failed before it started)."""
        for node in path:
            self.waiting[node] -= 1
            if self.waiting[node] == 0 and not (self.table.count.item(node) and self.idle.let_go(node)):
                self._drop(node)

    def take(self, nodes: Ints, counts: Ints) -> None:
        """Give each of `nodes`, which grow, so many more pages. The caller has made room for them."""
        total = int(counts.sum())
        if total:
            self.page_changes += 1
            self.table.append(nodes, counts, self.pool.take_singles(total))

    def extend(self, nodes: Ints, counts: Ints | int) -> None:
        """So many more tokens of each node are decided."""
        self.length[nodes] += counts

    def compute(self, nodes: Ints, counts: Ints) -> Ints:
        """The KV of so many more tokens of each node is there, or about to be; returns how many each has then."""
        held = self.held[nodes] + counts
        self.held[nodes] = held
        return held

    def compute_runs(self, nodes: Ints, counts: Ints) -> int:
        """The same for shared runs; returns how many of the tokens were never computed before."""
        new = np.maximum(self.compute(nodes, counts) - self.seen[nodes], 0)
        self.seen[nodes] += new
        return int(new.sum())

    def cut(self, tips: Ints, lengths: Ints) -> None:
        """Drop the tokens of tips behind the first `lengths` of each, and the pages that only they needed."""
        self.length[tips] = lengths
        self.held[tips] = held = self.pool.still_held(self.held[tips], lengths)
        keep = -(-held // self.pool.page_size)
        for i in np.flatnonzero(keep < self.table.count[tips]).tolist():
            self.pool.give(self.table.cut(tips.item(i), keep.item(i)))
            self.page_changes += 1
        self.cuts += 1

    def make_room(self, count: int) -> bool:
        """Evict idle nodes until `count` pages are free; False if that is not enough."""
        while self.pool.free < count and (node := self.idle.pop()) is not None:
            self._drop(node)
        return self.pool.free >= count

    def note_use(self, node: int, *, used: bool) -> None:
        """The node is in use from now on, or no longer."""
        if used:
            self._joined.append(node)
        self._is_used[node] = used
        self._stale = True
        self.changes += 1

    def forget(self, node: int) -> None:
        """The node is gone, and its number free."""
        self.waiting[node] = 0
        self.labels.drop(node)
        self.tokens.drop(node)
        if self.index is not None:
            self.index.drop(node)
        self.scored.drop_node(node)
        self._free.append(node)

    def _rest(self, node: int, moment: int) -> None:
        if self.waiting[node] == 0 and not self.idle.keep.retains:
            self._drop(node)
        else:
            self.idle.add(node, self.table.count.item(node), moment)

    def _drop(self, node: int) -> None:
        """Give up the KV of a shared run, and the run itself where nothing will read it."""
        self.pool.give(self.table.cut(node, 0))
        self.held[node] = 0
        if not self.waiting[node]:
            self.forget(node)
