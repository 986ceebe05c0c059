"""The phase in which beginnings of prompts are read from where an earlier job, or this one, kept their KV, instead of
being computed; and kept there for later.

Blocks lie on the grid of positions and are named after all tokens up to their end, so that it does not matter how a
job's prompts fork. A block is the bytes that computing would give, as those depend on the tokens alone; what a run
lacks behind its last whole block is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from umbel.cache.tree import KVTree
from umbel.ir.columns import runs
from umbel.ir.kv_blocks import names_of
from umbel.sched.agenda import Agenda
from umbel.sched.books import Books
from umbel.sched.phases.base import Phase
from umbel.sched.scheduler import Scheduler

Ints = NDArray[np.int64]
TokenIds = NDArray[np.int32]
Prime = Callable[[Agenda, Books, int, list[int]], None]


class Blocks(Protocol):
    """KV by name, each of `size` tokens. `__contains__` says what may be there."""

    size: int

    def __contains__(self, name: str) -> bool: ...

    def want(self, name: str) -> None:
        """A block that is there has one more reader."""
        ...

    def fetch(self, name: str, tokens: TokenIds, slots: Ints, first: int) -> bool:
        """Write the KV of a block's tokens from `first` on into KV slots, as many as these are; False where it is not
        there after all."""
        ...

    def keep(self, name: str, tokens: TokenIds, slots: Ints) -> None:
        """Keep the KV of a whole block, which stands in these slots."""
        ...


class Reload(Phase):
    """`prime` moves a sample on that starts, as in phases.prompts; before that, this one reads what is there of its
    path."""

    def __init__(self, blocks: Blocks, prime: Prime):
        self.blocks, self._prime = blocks, prime

    def fill(self, agenda: Agenda, books: Books) -> None:
        """Give no tokens out: what is read is read when a sample starts."""

    def start(self, agenda: Agenda, books: Books, slot: int, path: list[int]) -> None:
        """Move a sample on that starts."""
        if self._applies(books.kv, path):
            self._fetch(agenda, books, path)
        self._prime(agenda, books, slot, path)

    def finish(self, books: Books, slots: Ints, tokens: Ints) -> None:
        """The prompts of samples that are done are kept, as far as they are not there yet."""
        kv = books.kv
        for tip in books.seqs.tip[slots[books.seqs.running[slots]]].tolist():
            path = kv.path(kv.parent.item(tip))
            if self._applies(kv, path):
                self._keep(kv, path)

    def _applies(self, kv: KVTree, path: list[int]) -> bool:
        """Whether a path has a whole block, and is of the model alone, without an adapter."""
        return _end(kv, path[-1]) >= self.blocks.size and not kv.scope.item(path[0])

    def _fetch(self, agenda: Agenda, books: Books, path: list[int]) -> None:
        kv, size = books.kv, self.blocks.size
        begin, end = _lacking(kv, path, agenda)
        if begin >= end - end % size:
            return
        tokens, at = tokens_of(kv, path), begin
        for k, name in enumerate(names_of(tokens, size)[: -(-end // size)]):
            first, last = k * size, min((k + 1) * size, end)
            if last <= at:
                continue
            slots = slots_of(kv, path, at, last)
            if name not in self.blocks or not self.blocks.fetch(name, tokens[first : first + size], slots, at - first):
                break
            at = last
        self._note(books, path, begin, at)

    def _note(self, books: Books, path: list[int], begin: int, end: int) -> None:
        """The KV of these positions of a path is there."""
        kv = books.kv
        for node in path:
            start, length = kv.start.item(node), kv.length.item(node)
            held = min(end - start, length)
            if start + length > begin and held > kv.held.item(node):
                kv.held[node] = held
                kv.seen[node] = max(kv.seen.item(node), held)
                books.waiting.cached(node)

    def _keep(self, kv: KVTree, path: list[int]) -> None:
        if (kv.held[path] < kv.length[path]).any():
            return
        tokens, size = tokens_of(kv, path), self.blocks.size
        for k, name in enumerate(names_of(tokens, size)):
            begin, end = k * size, (k + 1) * size
            if name in self.blocks:
                self.blocks.want(name)
            else:
                self.blocks.keep(name, tokens[begin:end], slots_of(kv, path, begin, end))


def start_reloading(scheduler: Scheduler, blocks: Blocks) -> None:
    """From now on, before any row is added, prompts are read from blocks and kept there."""
    reload = Reload(blocks, scheduler.admit.prime)
    scheduler.admit.prime = reload.start
    scheduler.phases = [*scheduler.phases, reload]


def tokens_of(kv: KVTree, path: list[int]) -> TokenIds:
    """All tokens of a path."""
    return np.concatenate([kv.tokens.of(node, 0, kv.length.item(node)) for node in path]).astype(np.int32)


def slots_of(kv: KVTree, path: list[int], begin: int, end: int) -> Ints:
    """Where the KV of positions of a path stands in the pool (`[end - begin]`)."""
    size, found = kv.pool.page_size, []
    for node in path:
        start = kv.start.item(node)
        first, last = max(begin - start, 0), min(end - start, kv.length.item(node))
        if first < last:
            offsets = runs(np.array([first]), np.array([last - first]))
            found.append(kv.table.of(node)[offsets // size] * size + offsets % size)
    return np.concatenate(found)


def _end(kv: KVTree, node: int) -> int:
    return kv.start.item(node) + kv.length.item(node)


def _lacking(kv: KVTree, path: list[int], agenda: Agenda) -> tuple[int, int]:
    """The first position of a path whose KV is neither there nor computed in this step, and where what may be read
    ends: before runs of which this step computes a part, or of which more is wanted than KV."""
    begin = end = _end(kv, path[-1])
    for node in path:
        start, lacking = kv.start.item(node), kv.length.item(node) - kv.held.item(node)
        computed = agenda.counts.get(node, 0)
        if lacking and (0 < computed < lacking or node in kv.scored.open or node in kv.scored.summed.open):
            return min(begin, start), start
        if lacking > computed:
            begin = min(begin, start + kv.held.item(node))
    return begin, end
