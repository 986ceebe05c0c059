"""Runs of prompts that are on their way through the layers, a group of them in each step.

Their KV is there in some layers only, so that no one may read it: to the tree they are not computed before they have
passed all layers. A run that is given up on the way is known by its KV slots, which it has no more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from umbel.cache.tree import KVTree
from umbel.ir.layer_group import LayerGroup

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class StagedRun:
    """Tokens of one node from position `begin` on, the KV `slots` that they have, and the `places` where their hidden
    states wait (both `[tokens]`)."""

    node: int
    begin: int
    slots: Ints
    places: Ints

    def pieces(self, kv: KVTree) -> list[StagedRun]:
        """The nodes that have these tokens by now, as a run may have been cut in several; without those whose pages
        were given up, or that are computed already."""
        found, node, end = list[StagedRun](), self.node, self.begin + len(self.slots)
        while node >= 0 and end > self.begin:
            first = max(self.begin, kv.start.item(node))
            if first < end:
                own = slice(first - self.begin, end - self.begin)
                found.append(StagedRun(node, first, self.slots[own], self.places[own]))
                end = first
            node = kv.parent.item(node)
        return [run for run in found if run._stands(kv)]

    def _stands(self, kv: KVTree) -> bool:
        """Whether the node is in use, and has these tokens in these slots still to be computed."""
        if not kv.users[self.node] or kv.start.item(self.node) + kv.held.item(self.node) != self.begin:
            return False
        now = slots_of_run(kv, self.node, len(self.slots))
        return len(now) == len(self.slots) and bool((now == self.slots).all())


@dataclass(frozen=True, slots=True)
class PromptStage:
    """Runs that have passed the first `done` of `n_layers`, of rows of priority `level`; `size` hidden states wait."""

    runs: tuple[StagedRun, ...]
    level: int
    size: int
    n_layers: int
    done: int = 0

    @classmethod
    def of(cls, kv: KVTree, counts: Mapping[int, int], level: int, n_layers: int) -> PromptStage:
        """So many tokens of nodes, before the first layer."""
        runs, size = list[StagedRun](), 0
        for node, count in counts.items():
            begin = kv.start.item(node) + kv.held.item(node)
            runs.append(StagedRun(node, begin, slots_of_run(kv, node, count), np.arange(size, size + count)))
            size += count
        return cls(tuple(runs), level, size, n_layers)

    @property
    def tokens(self) -> int:
        """Tokens on their way."""
        return sum(len(run.slots) for run in self.runs)

    @property
    def counts(self) -> dict[int, int]:
        """Tokens of each node."""
        return {run.node: len(run.slots) for run in self.runs}

    def left(self, kv: KVTree) -> PromptStage | None:
        """What is left of it by now: runs that are still there, below such and below computed ones; None where nothing
        is."""
        runs = sorted((piece for run in self.runs for piece in run.pieces(kv)), key=lambda run: run.begin)
        left = list[StagedRun]()
        for run in runs:
            above = kv.path(kv.parent.item(run.node))
            done = {one.node: len(one.slots) for one in left}
            if all(kv.held.item(node) + done.get(node, 0) == kv.length.item(node) for node in above):
                left.append(run)
        return replace(self, runs=tuple(left)) if left else None


@dataclass(frozen=True, slots=True)
class Passing:
    """What a stage does in one step: its runs pass the layers up to `end`, or wait where it is not beyond those that
    they have passed."""

    stage: PromptStage
    end: int

    @property
    def waits(self) -> bool:
        """Whether the runs are not in the step."""
        return self.end <= self.stage.done

    @property
    def after(self) -> PromptStage | None:
        """The stage behind the step; None where its runs have passed all layers."""
        return None if self.end == self.stage.n_layers else replace(self.stage, done=self.end)

    @property
    def open_nodes(self) -> Sequence[int]:
        """Nodes of which tokens are in the step that are still not computed behind it."""
        return [] if self.waits or self.after is None else [run.node for run in self.stage.runs]

    def group(self, row_of: Callable[[int], int]) -> LayerGroup:
        """The rows in the step being made, of whose nodes `row_of` says the first rows."""
        stage, none = self.stage, np.empty(0, np.int64)
        runs = () if self.waits else stage.runs
        rows = np.concatenate([none, *(row_of(run.node) + np.arange(len(run.slots)) for run in runs)])
        places, order = np.concatenate([none, *(run.places for run in runs)]), np.argsort(rows)
        return LayerGroup(rows[order], places[order], stage.size, stage.done, self.end, stage.n_layers)


def computed(counts: dict[int, int], passing: Passing | None) -> dict[int, int]:
    """Of the tokens of shared runs in a step, those whose KV is there behind it."""
    still_open = () if passing is None else passing.open_nodes
    return {node: count for node, count in counts.items() if node not in still_open}


def slots_of_run(kv: KVTree, node: int, count: int) -> Ints:
    """The KV slots of the next `count` tokens of a node; fewer where it has not so many pages."""
    size, held = kv.pool.page_size, kv.held.item(node)
    pages, _ = kv.table.gather(np.array([node]))
    at = np.arange(held, min(held + count, len(pages) * size))
    return np.asarray(pages[at // size] * size + at % size)
