"""Decoding steps as CUDA graphs: the launches of a step are recorded once and replayed by a single call.

A graph reads and writes the same memory whenever it runs, so what differs from step to step is copied to a fixed place,
and the shapes of lists are rounded up: rows that are not there write to the scratch page and their logits are not read,
pieces of work that are not there have no rows. Steps with prompt tokens have enough to compute to hide their launches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from umbel.attention.triton import Lists, TritonAttention, works_on
from umbel.ir.step import Step
from umbel.kernels.transfer import bytes_for, fill
from umbel.models.decoder import Decoder

MOST_ROWS = 512  # of a step that is recorded: larger ones hide their launches
LEAST = 64  # entries of a list, so that small ones have one shape
SEEN = 2  # times that a shape runs as it is before it is recorded, which takes as long as several steps
MOST_GRAPHS = 128


class Graphs(Protocol):
    """Records what is launched."""

    def record(self, act: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Have `act` launch its work, which is not computed but kept; the result computes it, into the same tensor."""
        ...


class CudaGraphs:
    """CUDA graphs, all in one pool of memory, as only one runs at a time."""

    def __init__(self) -> None:
        self._pool: tuple[int, int] | None = None

    def record(self, act: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Capture the launches of `act` in a CUDA graph."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            out = act()
        self._pool = graph.pool()

        def replay() -> Tensor:
            graph.replay()
            return out

        return replay


@dataclass(frozen=True, slots=True)
class Form:
    """What steps of one graph have at most: rows, the entries of each list of attention, and partial results, those of
    each kind of layer."""

    rows: int
    lists: tuple[int, ...]
    queries: tuple[int, ...]

    @classmethod
    def of(cls, lists: Lists) -> Form:
        """The smallest form that fits a step."""
        sizes = tuple(_power_of_two(len(entries)) for entries in lists.arrays)
        return cls(_bucket(len(lists.writes)), sizes, tuple(map(_power_of_two, lists.queries)))


class GraphMemory:
    """The memory of one form: `tokens`, `positions`, `writes` (int64 `[rows]`), the lists of attention, and `before`,
    the tokens that the step before drew."""

    def __init__(self, form: Form, device: torch.device):
        self.form, self.device = form, device
        empty = self._padded(*(np.empty(0, np.int64) for _ in range(3)), Lists.nothing(len(form.queries)))
        self.memory = torch.zeros(bytes_for(empty), dtype=torch.uint8, device=device)
        self.tokens, self.positions, self.writes, *lists = fill(self.memory, empty)
        self.works = works_on(lists, form.queries)
        self.before = torch.zeros(MOST_ROWS, dtype=torch.int64, device=device)

    def take(self, step: Step, lists: Lists, before: Tensor | None) -> None:
        """Put a step in."""
        fill(self.memory, self._padded(step.tokens, step.positions, lists.writes, lists))
        if before is not None:
            self.before[: len(before)].copy_(before)

    def _padded(self, tokens: np.ndarray, positions: np.ndarray, writes: np.ndarray, lists: Lists) -> list[np.ndarray]:
        """All arrays at their full sizes."""
        rows = self.form.rows
        columns = [
            _pad(column, rows, value) for column, value in ((tokens, 0), (positions, 0), (writes, lists.scratch))
        ]
        # A piece of work without rows whose result would be whole: nothing is written.
        spare = [np.array((0, 0, 0, 0, -1)) if entries.shape[1:] == (5,) else 0 for entries in lists.arrays]
        return columns + [
            _pad(entries, size, value)
            for entries, size, value in zip(lists.arrays, self.form.lists, spare, strict=True)
        ]


class DecodeGraphs:
    """Computes the logits of steps in which every row is sampled from, recorded where their form comes often."""

    def __init__(self, decoder: Decoder, attention: TritonAttention, graphs: Graphs):
        self.decoder, self.attention, self.graphs = decoder, attention, graphs
        # One place for all logits: those of each graph apart would take gigabytes.
        self._logits = torch.empty(MOST_ROWS, decoder.spec.vocab_size, dtype=torch.float32, device=decoder.device)
        self._seen: dict[Form, int] = {}
        self._kept: dict[Form, tuple[GraphMemory, Callable[[], Tensor]]] = {}

    def logits(self, step: Step, before: Tensor | None) -> tuple[Tensor, int] | None:
        """Logits of every row, in order, and the KV tokens that each layer read; None for a step that is to run as it
        is. `before` are the tokens that the step before drew."""
        if step.scope is not None:  # whose rows are cut by adapter, in each step elsewhere
            return None
        known = 0 if before is None else len(before)
        if max(step.n_rows, known) > MOST_ROWS or len(np.unique(step.sampling.at)) < step.n_rows:
            return None
        lists = self.attention.lists(step)
        form = Form.of(lists)
        self._seen[form] = self._seen.get(form, 0) + 1
        if form not in self._kept:
            if self._seen[form] <= SEEN or len(self._kept) == MOST_GRAPHS:
                return None
            memory = GraphMemory(form, self.decoder.device)
            memory.take(step, lists, before)
            self._kept[form] = memory, self.graphs.record(lambda: self._compute(memory))
        memory, replay = self._kept[form]
        memory.take(step, lists, before)
        return replay()[: step.n_rows], lists.keys_read

    def _compute(self, memory: GraphMemory) -> Tensor:
        """Everything from token ids to logits, in the memory of one form."""
        tokens = torch.where(memory.tokens < 0, memory.before[(-1 - memory.tokens).clamp_min(0)], memory.tokens)
        self.attention.use(memory.works, memory.writes)
        hidden = self.decoder.embed(tokens, memory.positions)
        hidden = self.decoder.forward(hidden, self.decoder.batch(memory.positions), self.attention)
        out = self._logits[: len(tokens)]
        logits = self.decoder.logits(hidden, out)
        return out if logits.data_ptr() == out.data_ptr() else out.copy_(logits)


def _pad(array: np.ndarray, size: int, value: np.ndarray | int) -> np.ndarray:
    """The array with `value` behind it, up to `size` entries."""
    out = np.empty((size, *array.shape[1:]), array.dtype)
    out[: len(array)], out[len(array) :] = array, value
    return out


def _power_of_two(size: int) -> int:
    return max(LEAST, 1 << (size - 1).bit_length())


def _bucket(rows: int) -> int:
    """Rows rounded up, by an eighth at most from 64 on."""
    step = 1 if rows <= 8 else max(8, (1 << (rows - 1).bit_length()) // 16)
    return -(-rows // step) * step
