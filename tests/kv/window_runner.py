"""A fake runner that also keeps states: it checks in every step what a convolution and a recurrence would read."""

from __future__ import annotations

import numpy as np

from umbel.ir.step import Ints, Step
from umbel.kv.slots import path_slots, row_nodes
from umbel.kv.state_rows import StateChain, StateRows
from umbel.runner.base import Wait
from umbel.runner.fake import FakeRunner, _mark


class WindowRunner(FakeRunner):
    """Inputs are hashes of position and token, as KV slots hold them, so that the fake KV says what each must be."""

    def __init__(self, n_pages: int, page_size: int, vocab_size: int, taps: int = 4):
        super().__init__(n_pages, page_size, vocab_size)
        self.taps, self.inputs = taps, np.full(n_pages * taps, -1)
        self.sums = np.full(n_pages, -1)  # of the hashes of all tokens up to a page's last one
        self.kept_read = 0

    def start(self, step: Step) -> Wait:
        """Compute the step, and look at the tokens before each of its rows."""
        rows, marks = StateRows.of(step, self.taps), _mark(step.positions, step.tokens)
        before = np.concatenate(([0], self.inputs[rows.old], marks))[rows.before]
        assert len(set(rows.kept.tolist())) == len(rows.kept) and step.fresh[rows.left].all()
        self.inputs[rows.kept] = marks[rows.left]
        self.kept_read += len(rows.old)
        wait, node = super().start(step), row_nodes(step)
        self._check_sums(step, node, marks)
        for lag, found in enumerate(before, 1):
            there = np.flatnonzero(step.positions >= lag)
            slots = path_slots(step, node[there], step.positions[there, None] - lag)[:, 0]
            assert (found[there] == self.slots[slots]).all()
            assert not np.delete(found, there).any()
        return wait

    def _check_sums(self, step: Step, node: Ints, marks: Ints) -> None:
        """Go through the waves as a recurrence would, and compare what it has then with what the fake KV holds."""
        chain, found = StateChain.of(step), np.empty(step.n_rows, np.int64)
        with np.errstate(over="ignore"):
            for rows in np.split(chain.order, chain.ends[:-1]):
                source, target = chain.source[rows], chain.target[rows]
                before = np.where(source < 0, 0, self.sums[source])
                found[rows] = np.where(target < 0, before, before + marks[rows])
                kept = target[target >= 0]
                assert len(set(kept.tolist())) == len(kept)
                self.sums[kept] = found[rows][target >= 0]
        for row, total in enumerate(found.tolist()):
            assert (self._context(step, int(node[row]), int(step.positions[row])) - total) % 2**64 == 0
