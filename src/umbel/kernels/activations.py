"""Activations of an MLP in plain torch: a row's bits do not depend on how many others there are.

torch has functions of its own for most of them. Those use one form of exp or tanh for full vectors and another for what
is left over at the end of a thread's share, so that on a CPU the last bit would depend on the number of rows.
`torch.tanh`, `erf`, `exp` and `log1p` do not, and the rest is exactly rounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

Activation = Callable[[Tensor], Tensor]


def silu(x: Tensor) -> Tensor:
    """`x * sigmoid(x)`."""
    if x.is_cuda:
        return F.silu(x)
    wide = x.to(torch.float32)
    return (wide / (torch.exp(-wide) + 1.0)).to(x.dtype)


def gelu(x: Tensor) -> Tensor:
    """`x` times the normal distribution up to `x` (1606.08415)."""
    if x.is_cuda:
        return F.gelu(x)
    wide = x.to(torch.float32)
    return (wide * 0.5 * (torch.erf(wide * math.sqrt(0.5)) + 1.0)).to(x.dtype)


def gelu_tanh(x: Tensor) -> Tensor:
    """The same approximated by tanh, as in GPT-2."""
    if x.is_cuda:
        return F.gelu(x, approximate="tanh")
    wide = x.to(torch.float32)
    inner = (wide * wide * wide * 0.044715 + wide) * math.sqrt(2 / math.pi)
    return (wide * 0.5 * (torch.tanh(inner) + 1.0)).to(x.dtype)


def softplus(x: Tensor) -> Tensor:
    """`log(1 + exp(x))`, of float32."""
    return torch.relu(x) + torch.log1p(torch.exp(-x.abs()))


def relu2(x: Tensor) -> Tensor:
    """The square of what is positive (Primer, 2109.08668)."""
    return torch.relu(x).square()


ACTIVATIONS: Mapping[str, Activation] = MappingProxyType({
    "silu": silu, "gelu": gelu, "gelu_tanh": gelu_tanh, "relu": torch.relu, "relu2": relu2,
})  # fmt: skip
"""By the names of `ir/layer.py`."""
