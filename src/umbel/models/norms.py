"""The norms of a decoder: each of rows by themselves, so that on a CPU a row's bits do not depend on its neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from umbel.ir.layer import Norm
from umbel.kernels.rows import add_rms_norm, rms_norm


class RowNorm(Protocol):
    """A norm of the last axis."""

    @property
    def fusible(self) -> Tensor | None:
        """The weight with which the kernels of RMSNorm compute just this, if there is one."""
        ...

    def apply(self, x: Tensor) -> Tensor:
        """The norm of rows, of their shape and type."""
        ...

    def add(self, x: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
        """`x + delta`, and its norm."""
        ...


@dataclass(frozen=True, slots=True)
class RmsNorm:
    """RMSNorm (1910.07467), rounded to the type of the rows before the weight; one kernel with the sum before it."""

    weight: Tensor
    eps: float

    @property
    def fusible(self) -> Tensor:
        """Implement `RowNorm.fusible`."""
        return self.weight

    def apply(self, x: Tensor) -> Tensor:
        """Implement `RowNorm.apply`."""
        return rms_norm(x, self.weight, self.eps)

    def add(self, x: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
        """Implement `RowNorm.add`."""
        return add_rms_norm(x, delta, self.weight, self.eps)


@dataclass(frozen=True, slots=True)
class WideRmsNorm:
    """RMSNorm that is rounded behind the weight, which is float32."""

    weight: Tensor
    eps: float

    fusible: ClassVar[None] = None

    def apply(self, x: Tensor) -> Tensor:
        """Implement `RowNorm.apply`."""
        return rms_norm(x.to(torch.float32), self.weight, self.eps).to(x.dtype)

    def add(self, x: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
        """Implement `RowNorm.add`."""
        total = x + delta
        return total, self.apply(total)


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """Layer normalisation (1607.06450); a `weight` of more axes than one normalises the last only."""

    weight: Tensor | None
    bias: Tensor | None
    eps: float

    fusible: ClassVar[None] = None

    def apply(self, x: Tensor) -> Tensor:
        """Implement `RowNorm.apply`."""
        if self.weight is None or self.weight.ndim == 1:
            return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)
        return (F.layer_norm(x.to(torch.float32), x.shape[-1:], eps=self.eps) * self.weight).to(x.dtype)

    def add(self, x: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
        """Implement `RowNorm.add`."""
        total = x + delta
        return total, self.apply(total)


@dataclass(frozen=True, slots=True)
class NoNorm:
    """What stands where a layer has no norm."""

    fusible: ClassVar[None] = None

    def apply(self, x: Tensor) -> Tensor:
        """The rows themselves."""
        return x

    def add(self, x: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
        """The sum, twice."""
        total = x + delta
        return total, total


@dataclass(frozen=True, slots=True)
class Scaled:
    """What a layer adds, times `scale`, behind a norm."""

    norm: RowNorm
    scale: float

    def apply(self, x: Tensor) -> Tensor:
        """The norm of rows, scaled."""
        return self.norm.apply(x) * self.scale


def convert_norm(norm: Norm, weight: Tensor | None, bias: Tensor | None, eps: float) -> RowNorm:
    """A norm from what a checkpoint has of it."""
    if norm.kind == "layer":
        return LayerNorm(weight, bias, eps)
    if weight is None:
        raise ValueError("an RMSNorm without weights is not supported")
    if not norm.is_wide or weight.dtype == torch.float32:
        return RmsNorm(weight + 1 if norm.is_offset else weight, eps)
    return WideRmsNorm(weight.to(torch.float32) + norm.is_offset, eps)
