"""Rows of a step that pass only some of the layers in it, as prompts of a mixture of experts may: a group of layers in
each step, until they have passed all (layered prefill, arXiv 2510.08055)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LayerGroup:
    """`rows` of a step (ascending) that pass layers `first` to `end` (not included) of `n_layers`.

    Their hidden states wait between steps, each at its own of `size` `places` (`[rows]`): they are read there unless
    `first` is 0, and put there unless `end` is `n_layers`. A group without rows lets all wait that do; a step without a
    group drops them.
    """

    rows: Ints
    places: Ints
    size: int
    first: int
    end: int
    n_layers: int

    @property
    def is_last(self) -> bool:
        """Whether the rows have passed all layers behind this step."""
        return self.end == self.n_layers

    @property
    def share(self) -> float:
        """The share of the layers that the rows pass in this step."""
        return (self.end - self.first) / self.n_layers
