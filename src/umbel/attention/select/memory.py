"""What selectors need kept of each path: rows of memory for the KV slots that have something kept.

It is kept by KV slot, as keys are. So whatever forks, is cut into chunks, steps back and is computed again finds what
belongs to its path, and what is kept of a slot that others use by now is written over before it is read.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from umbel.kernels.memory import empty

Ints = NDArray[np.int64]


class SlotMemory:
    """Tensors of one shape for some KV slots, in each layer that has some."""

    def __init__(self, n_slots: int):
        self._row_of = np.full(n_slots, -1, np.int64)
        self._n_rows = 0
        self._layers: dict[int, Tensor] = {}

    def admit(self, slots: Ints) -> None:
        """Have a row for each of some slots."""
        new = slots[self._row_of[slots] < 0]
        self._row_of[new] = np.arange(self._n_rows, self._n_rows + len(new))
        self._n_rows += len(new)

    def write(self, layer: int, slots: Ints, values: Tensor) -> None:
        """Keep `values` (`[slots, ...]`) for slots that were admitted."""
        held = self._layers.get(layer)
        if held is None or len(held) < self._n_rows:
            grown = empty((max(64, 2 * self._n_rows), *values.shape[1:]), values.dtype, values.device)
            if held is not None:
                grown[: len(held)] = held
            self._layers[layer] = held = grown
        held[self._at(slots, held)] = values

    def read(self, layer: int, slots: Ints) -> Tensor:
        """What is kept for some slots (`[slots, ...]`), in place where it lies side by side."""
        held = self._layers[layer]
        at = self._row_of[slots]
        if len(at) and (np.diff(at) == 1).all():
            return held[int(at[0]) : int(at[-1]) + 1]
        return held[self._at(slots, held)]

    def where(self, slots: Ints) -> Ints:
        """Which rows of `held` are kept for some slots (`[slots]`)."""
        return self._row_of[slots]

    def held(self, layer: int) -> Tensor:
        """All that is kept in a layer (`[rows, ...]`)."""
        return self._layers[layer]

    def _at(self, slots: Ints, held: Tensor) -> Tensor:
        return torch.from_numpy(self._row_of[slots]).to(held.device)


class PathNotes:
    """What was found of paths, by the KV slot of their last position, by layer and for whose rows: forgotten when the
    slot is written."""

    def __init__(self) -> None:
        self._found: dict[int, dict[tuple[int, str], object]] = {}

    def forget(self, slots: Ints) -> None:
        """Forget what ends in some slots."""
        for slot in slots.tolist():
            self._found.pop(slot, None)

    def get(self, layer: int, slot: int, rows: str) -> object | None:
        """What was found, None where nothing was."""
        return self._found.get(slot, {}).get((layer, rows))

    def put(self, layer: int, slot: int, rows: str, found: object) -> None:
        """Note what was found."""
        self._found.setdefault(slot, {})[layer, rows] = found
