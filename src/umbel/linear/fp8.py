"""Products in fp8 (e4m3): weights by output, activations by row, sums in float32. Lossy: answers may change.

The scales are those of "FP8 Formats for Deep Learning" (2209.05433) without calibration: each output's and each row's
largest value becomes the largest that e4m3 has. GPUs that multiply in fp8 (Ada, Hopper and later) do so; anywhere else
the same rounded numbers are multiplied in float32, which shows what they do to answers and saves no time. The embedding
and the head stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from umbel.kernels.fp8 import converts_fp8
from umbel.kernels.reference import round_to_fp8
from umbel.kernels.rows import gated_silu, round_rows
from umbel.linear.base import LinearMethod, Site, Table

MULTIPLE = 16  # of inputs and outputs, for the tensor cores


@dataclass(frozen=True, slots=True)
class Fp8Linear:
    """A product with weights in fp8: `weight` e4m3 `[outputs, inputs]`, `scale` float32 `[outputs]`; `is_gated`: a gate
    is behind it; `by_tensor_cores`: the device multiplies e4m3 as such."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None
    is_gated: bool
    by_tensor_cores: bool

    def apply(self, x: Tensor) -> Tensor:
        """Rounds the rows of `x` to e4m3 too, and multiplies."""
        product = self.before_gate(x)
        return gated_silu(product) if self.is_gated else product

    def before_gate(self, x: Tensor) -> Tensor:
        """The same without the gate."""
        rows, scale = round_rows(x)
        product = self._multiply(rows, scale)
        return (product if self.bias is None else product + self.bias).to(x.dtype)

    def _multiply(self, rows: Tensor, scale: Tensor) -> Tensor:
        if not self.by_tensor_cores:
            return rows.float() @ self.weight.float().t() * scale.unsqueeze(1) * self.scale
        scales = scale.unsqueeze(1), self.scale.unsqueeze(0)
        return torch._scaled_mm(rows, self.weight.t(), *scales, out_dtype=torch.bfloat16)


class Fp8Method:
    """Weights rounded to e4m3 by output; tables are those of the method `base`."""

    keeps_weights = False

    def __init__(self, device: torch.device, base: LinearMethod):
        self.by_tensor_cores = converts_fp8(device)
        self.base = base

    @classmethod
    def of(cls, site: Site) -> Fp8Method:
        """On any device."""
        return cls(site.device, site.dense)

    def convert(self, weight: Tensor, bias: Tensor | None = None, *, gated: bool = False) -> Fp8Linear:
        """The weights in e4m3, with a scale for each output."""
        rounded, scale = round_to_fp8(weight)
        fits = all(n % MULTIPLE == 0 for n in weight.shape)
        return Fp8Linear(rounded, scale, bias, gated, self.by_tensor_cores and fits)

    def convert_table(self, weight: Tensor) -> Table:
        """A table of the method `base`."""
        return self.base.convert_table(weight)
