"""The seam of flows: which rows of a step pass which layers of a model, and what the others leave there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from umbel.attention.base import AttentionBackend
from umbel.ir.step import Step
from umbel.ir.step_parts import only_rows
from umbel.kv.slots import row_nodes
from umbel.linear.base import LinearMethod, Weights
from umbel.models.batch import ForwardBatch
from umbel.models.decoder import Decoder

Ints = NDArray[np.int64]
LeavesKeys = Callable[[Tensor, ForwardBatch, AttentionBackend], None]


@dataclass(frozen=True, slots=True)
class Leg:
    """`rows` of a step (ascending, those of a node side by side; None: all) that pass `layers`.

    `leave`: what writes keys and values of all rows in these layers before, from the hidden states of all rows
    (`[rows, hidden]`); None: rows that do not pass a layer have none there, and no row that does may read them.
    """

    layers: range
    rows: Ints | None = None
    leave: LeavesKeys | None = None


@dataclass(frozen=True, slots=True)
class FlowParts:
    """What a flow may take weights from: a loaded `decoder`, its `weights` by the names of `models/weights.py`, what
    converts them, and the model's `directory`."""

    decoder: Decoder
    weights: Weights
    method: LinearMethod
    directory: Path


class LayerFlow(Protocol):
    """A rule by which rows pass layers, made of the settings of its technique (`Mapping[str, float]`) and a spec."""

    def open(self, parts: FlowParts) -> None:
        """Take what it needs of a loaded model, once. Raises UsageError where the model does not have it."""
        ...

    def legs(self, step: Step, asked: Ints) -> Sequence[Leg]:
        """The layers of a model in order, each in one leg. The last has the rows that are `asked` for. Only the first
        leg that is not of all rows may leave keys."""
        ...


def tail_rows(step: Step, asked: Ints) -> Ints:
    """The rows of each node from the first that is `asked` for on, ascending."""
    nodes = row_nodes(step)
    first = np.full(len(step.parent), step.n_rows)
    np.minimum.at(first, nodes[asked], asked)
    return np.flatnonzero(np.arange(step.n_rows) >= first[nodes])


def part_of(step: Step, rows: Ints, *, has_keys: bool) -> Step:
    """The step of some rows (ascending, those of a node side by side), whose nodes end with the last of these; where
    it `has_keys`, those of all rows are there already, and nodes end as they did."""
    part = only_rows(replace(step, scores=None, sums=None), rows)
    if has_keys:
        return replace(part, fresh=np.zeros(len(rows), bool))
    own, end = part.row_end > part.row_begin, part.end.copy()
    end[own] = part.positions[part.row_end[own] - 1] + 1
    return replace(part, end=end)
