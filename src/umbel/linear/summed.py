"""Products whose inputs are spread over the ranks of a process group: each multiplies its part, and all add up."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from umbel.linear.base import Linear


@dataclass(frozen=True, slots=True)
class SummedLinear:
    """A product of which each rank has some of the inputs."""

    part: Linear

    def apply(self, x: Tensor) -> Tensor:
        """The sum of the ranks' products."""
        return add_up(self.part.apply(x))


def add_up(part: Tensor) -> Tensor:
    """The sum of all ranks' parts."""
    if part.is_cuda:
        dist.all_reduce(part)
        return part
    wide = part.to(torch.float32)  # gloo adds up nothing narrower on every system
    dist.all_reduce(wide)
    return wide.to(part.dtype)
