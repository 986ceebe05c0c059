"""A fake runner that also keeps the inputs of a convolution, and checks in every step what its rows would read."""

from __future__ import annotations

import numpy as np

from umbel.ir.step import Step
from umbel.kv.slots import path_slots, row_nodes
from umbel.kv.state_rows import StateRows
from umbel.runner.base import Wait
from umbel.runner.fake import FakeRunner, _mark


class WindowRunner(FakeRunner):
    """Inputs are hashes of position and token, as KV slots hold them, so that the fake KV says what each must be."""

    def __init__(self, n_pages: int, page_size: int, vocab_size: int, taps: int = 4):
        super().__init__(n_pages, page_size, vocab_size)
        self.taps, self.inputs = taps, np.full(n_pages * taps, -1)
        self.kept_read = 0

    def start(self, step: Step) -> Wait:
        """Compute the step, and look at the tokens before each of its rows."""
        rows, marks = StateRows.of(step, self.taps), _mark(step.positions, step.tokens)
        before = np.concatenate(([0], self.inputs[rows.old], marks))[rows.before]
        assert len(set(rows.kept.tolist())) == len(rows.kept) and step.fresh[rows.left].all()
        self.inputs[rows.kept] = marks[rows.left]
        self.kept_read += len(rows.old)
        wait, node = super().start(step), row_nodes(step)
        for lag, found in enumerate(before, 1):
            there = np.flatnonzero(step.positions >= lag)
            slots = path_slots(step, node[there], step.positions[there, None] - lag)[:, 0]
            assert (found[there] == self.slots[slots]).all()
            assert not np.delete(found, there).any()
        return wait
