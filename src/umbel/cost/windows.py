"""What queries see where the sliding windows of layers differ: pairs and KV tokens as means over the layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umbel.cost.pairs import causal_pairs
from umbel.ir.spec import ModelSpec

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class WindowShare:
    """The layers in which a query sees `keys` keys up to its own (infinity: all): their share of the FLOPs that a pair
    of a query and a key takes (`pair_share`), and of the bytes of a token's KV (`kv_share`)."""

    keys: float
    pair_share: float = 1.0
    kv_share: float = 1.0

    def pairs(self, start: Ints, end: Ints) -> Ints:
        """Keys seen by the queries at positions `start` to `end`."""
        return causal_pairs(start, end, None if self.keys == inf else int(self.keys))


@dataclass(frozen=True, slots=True)
class Windows:
    """The windows of a model, one for all layers that have the same. A pair in a layer counts by that layer's share of
    the FLOPs, so that pairs times `Shape.pair_flops` are the FLOPs of all layers; KV tokens count by bytes."""

    each: tuple[WindowShare, ...] = (WindowShare(inf),)

    @classmethod
    def of(cls, spec: ModelSpec) -> Windows:
        """The windows of a model."""
        flops: dict[float, int] = {}
        numbers: dict[float, int] = {}
        for shape in spec.kv_shapes:
            keys = inf if shape.window is None else shape.window
            flops[keys] = flops.get(keys, 0) + shape.pair_flops
            numbers[keys] = numbers.get(keys, 0) + shape.stored_numbers
        return cls(tuple(WindowShare(keys, share, _shares(numbers)[keys]) for keys, share in _shares(flops).items()))

    def seen(self, keys: Any) -> Any:
        """Keys that queries see which have `keys` up to their own (a number or an array): the mean of the layers."""
        if len(self.each) == 1:
            return keys if self.each[0].keys == inf else np.minimum(keys, self.each[0].keys)
        return sum(one.pair_share * np.minimum(keys, one.keys) for one in self.each)

    def pairs(self, start: Ints, end: Ints) -> NDArray[Any]:
        """Keys seen by the queries at positions `start` to `end`: the mean of the layers."""
        if len(self.each) == 1:
            return self.each[0].pairs(start, end)
        return np.asarray(sum(one.pair_share * one.pairs(start, end) for one in self.each))

    @property
    def unbounded_share(self) -> float:
        """The share of a token's KV in layers that have no window."""
        return sum(one.kv_share for one in self.each if one.keys == inf)


WHOLE = Windows()
"""Every layer sees all."""


def _shares(parts: Mapping[float, int]) -> dict[float, float]:
    return {name: part / sum(parts.values()) for name, part in parts.items()}
