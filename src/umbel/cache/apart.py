"""How a tip leaves its path for a memory: a run of fewer places that holds what is kept of the path, for it alone.

    before      prompt [0, 900) ----- tip [900, 912)              900 + 12 places, of which others read the first 900
    after       memory, 240 places -- tip [912, 913)              positions go on; place = position - 672

A shared run is never changed by what one sample forgets. What is kept is copied, and a run whose waiting samples all
have memories gives its pages back; it is computed again if one of them has lost its pages. How many places are kept
follows from positions alone, so that nothing here waits for the device, which finds out which ones (ir/kept.py).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from umbel.cache.memories import Unpin
from umbel.cache.tree import KVTree
from umbel.cost.forget import Measure
from umbel.ir.kept import Edit, Shortened
from umbel.ir.step import Step
from umbel.ir.workload import Workload

Ints = NDArray[np.int64]


class Apart:
    """Implements `Memories` of a tree, by a measure. `edits` are those since the last step; `places_forgotten` counts
    what all of them left out."""

    def __init__(self, tree: KVTree, measure: Measure):
        self.tree, self.measure = tree, measure
        self.edits: list[Edit] = []
        self.places_forgotten = 0
        self._leaf: dict[int, tuple[int, int]] = {}  # tip -> where its prompt ends; the end of its last edit
        self._below = Counter[int]()  # per planned node: samples below it that have a memory

    def look(self, tip: int, prompt: int) -> bool:
        """A tip has come to its edge: forget what is to be forgotten there. False where there is no room for it."""
        tree = self.tree
        end = tree.start.item(tip) + tree.held.item(tip)
        live, keep = end - tree.gone.item(tip), self.measure.live(prompt, end)
        if keep < live and not self._shrink(tip, prompt, end, keep):
            return False
        tree.edge[tip] = self.measure.next_edge(prompt, end)
        return True

    def join(self, first: int, workload: Workload) -> None:
        """Implement `Memories.join`: what is forgotten follows from positions."""

    def first_edge(self, start: int) -> int:
        """Implement `Memories.first_edge`: the end of its prompt."""
        return start

    def rejoin(self, tip: int) -> Unpin:
        """Implement `Memories.rejoin`."""
        if tip not in self._leaf:
            return self._unpin
        tree, (leaf, _) = self.tree, self._leaf.pop(tip)
        begin = tree.start.item(leaf) + tree.length.item(leaf)
        self._drop_memory(tree.parent.item(tip))
        tree.length[tip] += tree.start.item(tip) - begin
        tree.start[tip] = tree.edge[tip] = begin
        self._hang(tip, leaf, gone=0)
        self._below.subtract(tree.path(leaf))
        return self._stop_waiting

    def pages_beside(self, path: list[int]) -> int:
        """Implement `Memories.pages_beside`."""
        tree, prompt = self.tree, self.tree.start.item(path[-1]) + self.tree.length.item(path[-1])
        keep, pages_for = self.measure.live(prompt, prompt), tree.pool.pages_for
        own = sum(pages_for(tree.length.item(node)) for node in path if not tree.users[node])
        return max(pages_for(keep) - own, 0) if keep < prompt else 0

    def mark(self, step: Step, nodes: Ints) -> Step:
        """Implement `Memories.mark`."""
        gone, edits = self.tree.gone[nodes], tuple(self.edits)
        self.edits.clear()
        if not edits and not gone.any():
            return step
        places = step.positions - np.repeat(gone, step.row_end - step.row_begin)
        kept = Shortened(step.positions, edits)
        return replace(step, start=step.start - gone, end=step.end - gone, positions=places, kept=kept)

    def give_back(self, path: list[int]) -> None:
        """Of some nodes, those that nothing reads and only samples wait for that have memories give their pages: were
        one above given up before, what is below it would be of no use."""
        tree = self.tree
        for node in path:
            if node in tree.idle and tree.waiting[node] == self._below[node]:
                tree.idle.remove(node)
                tree.pool.give(tree.table.cut(node, 0))
                tree.held[node] = 0

    def _shrink(self, tip: int, prompt: int, end: int, keep: int) -> bool:
        """Give a tip a memory of `keep` places in place of its path and of what it holds."""
        tree = self.tree
        leaf, before = self._leaf.get(tip, (tree.parent.item(tip), 0))
        path, pages, pool = tree.path(tip), tree.pool.pages_for(keep), tree.pool
        comes_free = sum(tree.table.count.item(node) for node in path if tree.users[node] == 1)
        if pages > pool.free + tree.idle.pages + comes_free:
            return False
        sources, scope = self._slots(path), tree.scope.item(path[0])
        if tip in self._leaf:
            self._drop_memory(path[0])
        else:
            self._leave(path[:-1])
        pool.give(tree.table.cut(tip, 0))
        tree.make_room(pages)
        tree.page_changes += 1
        tree.length[tip] -= tree.held[tip]
        tree.start[tip], tree.held[tip] = end, 0
        memory = self._new_memory(end, keep, scope)
        self._hang(tip, memory, gone=end - keep)
        self._leaf[tip] = leaf, end
        self.edits.append(Edit(sources, self._slots([memory]), prompt, before, end))
        self.places_forgotten += len(sources) - keep
        return True

    def _unpin(self, path: list[int], *, done: bool) -> None:
        self.tree.unpin(path, done=done)
        self.give_back(path)

    def _stop_waiting(self, path: list[int], *, done: bool) -> None:
        if done:
            self.tree.skip(path)

    def _leave(self, path: list[int]) -> None:
        """A sample does not read its prompt any more; runs of which that holds for all that wait give their pages."""
        self.tree.unpin(path, done=False)
        self._below.update(path)
        self.give_back(path)

    def _new_memory(self, end: int, keep: int, scope: int) -> int:
        """A run of `keep` places that ends where position `end` comes; its pages are there."""
        tree, memory = self.tree, self.tree.number()
        tree.parent[memory] = tree.slot[memory] = -1
        tree.start[memory] = tree.gone[memory] = end - keep
        tree.length[memory] = tree.held[memory] = tree.seen[memory] = keep
        tree.scope[memory], tree.drawn[memory] = scope, 0
        tree.labels.plant(np.array([memory]), np.array([1]))
        tree.users[memory] = tree.waiting[memory] = 1
        tree.note_use(memory, used=True)
        tree.table.put(memory, tree.pool.take_run(tree.pool.pages_for(keep)))
        return memory

    def _drop_memory(self, memory: int) -> None:
        tree = self.tree
        tree.pool.give(tree.table.cut(memory, 0))
        tree.held[memory] = tree.users[memory] = tree.gone[memory] = 0
        tree.note_use(memory, used=False)
        tree.forget(memory)

    def _hang(self, tip: int, parent: int, gone: int) -> None:
        tree = self.tree
        tree.parent[tip], tree.gone[tip] = parent, gone
        tree.labels.drop(tip)
        tree.labels.put(tip, parent)

    def _slots(self, nodes: list[int]) -> Ints:
        """The KV slots that nodes hold, one behind the other."""
        size, tree = self.tree.pool.page_size, self.tree
        each = [
            (tree.table.of(node)[:, None] * size + np.arange(size)).ravel()[: tree.held.item(node)] for node in nodes
        ]
        return np.concatenate(each)
