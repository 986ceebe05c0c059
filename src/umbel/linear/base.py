"""The seam of matrix products: a method converts a model's weights once, and then applies them to rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from umbel.kernels.int4 import Int4Weight

Weights = Mapping[str, Tensor | Int4Weight]
"""A model's tensors by our names; products may be in 4 bits, for the method that takes them (linear/int4.py)."""


class Linear(Protocol):
    """Weights as a method keeps them."""

    def apply(self, x: Tensor) -> Tensor:
        """`[rows, inputs]` -> `[rows, outputs]`."""
        ...


class Product(Linear, Protocol):
    """A product that a method has made, maybe with a gate behind it."""

    def before_gate(self, x: Tensor) -> Tensor:
        """The same without the gate that may be behind it: `[rows, 2 * outputs]` then, the gate's half first. In memory
        of its own, to which something can be added."""
        ...


class Table(Protocol):
    """Weights `[vocab, hidden]` that are looked up row by row, multiplied with as the output head, or both."""

    def rows(self, ids: Tensor) -> Tensor:
        """The weights of `ids` (int64 `[n]`): `[n, hidden]`."""
        ...

    def logits(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """`[rows, hidden]` -> float32 `[rows, vocab]`; `out`, of that type and shape, may be where they are put."""
        ...


class LinearMethod(Protocol):
    """Converts weights as a checkpoint has them, `[outputs, inputs]`; what it was given may be dropped afterwards."""

    @property
    def keeps_weights(self) -> bool:
        """Whether weights stay as they are, so that other kernels can multiply with them too."""
        ...

    def convert(self, weight: Tensor, bias: Tensor | None = None, *, gated: bool = False) -> Product:
        """A product, `x @ weight.T + bias`; if `gated`, with the gate behind it, `silu(first half) * second half`, so
        that it has half the outputs."""
        ...

    def convert_table(self, weight: Tensor) -> Table:
        """The embedding, the head, or both in one."""
        ...


@dataclass(frozen=True, slots=True)
class Site:
    """Where a method is to work: rows of a `dtype` on a `device`, beside the method `dense` for what it leaves as it
    is; `packed`: the model's weights come in 4 bits; `asked`: the method was asked for by name, with what it loses."""

    dtype: torch.dtype
    device: torch.device
    dense: LinearMethod
    packed: bool = False
    asked: bool = True
