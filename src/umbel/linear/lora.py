"""Products with what adapters of low rank add to some rows (LoRA, 2106.09685), each row by its own adapter.

As in Punica (2310.18547) and S-LoRA (2311.03285) the base product is made for all rows at once, and rows of one adapter
stand side by side in a step, so that its two small products are made for a run of rows each. They are made by a method
whose rows do not depend on one another: on a CPU a row gets the same bits beside any others. Rows without an adapter
get those of a model that has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

from umbel.ir.step import Ints, Step
from umbel.kernels.rows import gated_silu
from umbel.linear.base import Linear, Product
from umbel.linear.packed import Pair, add_packed, gated_with


class RowAdapters(Protocol):
    """What is added to the products of some rows, each by its own adapter (`models/adapters/bank.py`)."""

    def prepare(self, step: Step, wanted: Ints) -> None:
        """Take the rows of a step, and which of them (`[k]`) are drawn from or scored."""
        ...


@dataclass(frozen=True, slots=True)
class LowRankPart:
    """What is added to `outputs` of a product: `up` of the numbers `inner` that the inner product makes."""

    inner: slice
    outputs: slice
    up: Linear


@dataclass(frozen=True, slots=True)
class LowRankProduct:
    """What one adapter adds to one product: that of each part of `down` of the inputs. A product that stacks several
    modules has a part for each; the adapter's scale is in `up`."""

    down: Linear
    parts: tuple[LowRankPart, ...]

    def places(self) -> list[tuple[int, int, Linear]]:
        """Of each part where its numbers begin, where its outputs do, and its product."""
        return [(part.inner.start, part.outputs.start, part.up) for part in self.parts]

    def add_to(self, product: Tensor, x: Tensor) -> None:
        """Add to `product` (`[rows, outputs]`), in place, what is made of `x` (`[rows, inputs]`)."""
        inner = self.down.apply(x)
        for part in self.parts:
            product[:, part.outputs] += part.up.apply(inner[:, part.inner].contiguous())


@dataclass(frozen=True, slots=True)
class AdaptedRun:
    """Rows `begin` to `end` of a step, which have an adapter: its `products` by the names of ours."""

    begin: int
    end: int
    products: Mapping[str, LowRankProduct]

    def __len__(self) -> int:
        return self.end - self.begin


@dataclass(slots=True)
class AdaptedRows:
    """The runs of rows with adapters in the step that is computed, in order; set once a step."""

    runs: tuple[AdaptedRun, ...] = ()


@dataclass(frozen=True, slots=True)
class AdaptedLinear:
    """The product `name` of a model with what the adapters of its `rows` add."""

    base: Linear
    name: str
    rows: AdaptedRows

    def apply(self, x: Tensor) -> Tensor:
        """`[rows, inputs]` -> `[rows, outputs]`."""
        return add_adapters(self.base.apply(x), x, self.name, self.rows.runs)


@dataclass(frozen=True, slots=True)
class AdaptedGate:
    """The same of a product that has a gate behind it, and so behind the sum."""

    base: Product
    name: str
    rows: AdaptedRows

    def apply(self, x: Tensor) -> Tensor:
        """`[rows, inputs]` -> `[rows, outputs]`. Rows without an adapter pass the gate of the base, whose bits may be
        others."""
        runs = [run for run in self.rows.runs if self.name in run.products]
        if not runs:
            return self.base.apply(x)
        if (fast := gated_with(self.base, x, _pairs(self.name, runs))) is not None:
            return fast
        if sum(map(len, runs)) == len(x):
            return self._summed(x, runs)
        mine = torch.cat([torch.arange(run.begin, run.end, device=x.device) for run in runs])
        others = torch.ones(len(x), dtype=torch.bool, device=x.device).index_fill_(0, mine, False)
        changed, kept = self._summed(x[mine], _close_up(runs)), self.base.apply(x[others])
        out = kept.new_empty((len(x), kept.shape[1]))
        out[mine], out[others] = changed, kept
        return out

    def _summed(self, x: Tensor, runs: Sequence[AdaptedRun]) -> Tensor:
        return gated_silu(add_adapters(self.base.before_gate(x), x, self.name, runs))


def add_adapters(product: Tensor, x: Tensor, name: str, runs: Sequence[AdaptedRun]) -> Tensor:
    """Add to the product `name` of rows `x`, in place, what the adapters of some runs of them add."""
    if not add_packed(product, x, _pairs(name, runs)):
        for run in runs:
            if (own := run.products.get(name)) is not None:
                own.add_to(product[run.begin : run.end], x[run.begin : run.end])
    return product


def _pairs(name: str, runs: Sequence[AdaptedRun]) -> list[Pair]:
    """The products of runs that add to the product `name`."""
    mine = ((run, run.products.get(name)) for run in runs)
    return [(run.begin, run.end, own.down, own.places()) for run, own in mine if own is not None]


def _close_up(runs: Sequence[AdaptedRun]) -> list[AdaptedRun]:
    """Runs whose rows stand behind each other, without those between them."""
    ends = list(accumulate(map(len, runs)))
    return [AdaptedRun(end - len(run), end, run.products) for run, end in zip(runs, ends, strict=True)]
