"""The products in a module of transformers, replaced by ours: linear modules once, calls of `linear` as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from transformers.pytorch_utils import Conv1D

from umbel.linear.base import LinearMethod
from umbel.linear.dense import linear


class OwnLinear(nn.Module):
    """A product made by a method of ours, in the place of a linear module. `weight` holds no numbers: modules look at
    its type and its device."""

    def __init__(self, method: LinearMethod, weight: Tensor, bias: Tensor | None):
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.weight = weight.new_empty(0)
        self.product = method.convert(weight, bias)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., inputs]` to `[..., outputs]`."""
        return self.product.apply(x.reshape(-1, self.in_features)).view(*x.shape[:-1], self.out_features)


def weights_of(module: nn.Module) -> tuple[Tensor, Tensor | None] | None:
    """The weight (`[outputs, inputs]`) and the bias of a linear module; None for any other, subclasses too."""
    if type(module) is nn.Linear:
        return module.weight, module.bias
    if type(module) is Conv1D:
        return module.weight.T, module.bias
    return None


def linears(module: nn.Module) -> Iterator[tuple[str, Tensor, Tensor | None]]:
    """Every linear module in `module`, by name."""
    for name, inner in module.named_modules():
        if (found := weights_of(inner)) is not None:
            yield name, *found


def replace_linears(module: nn.Module, method: LinearMethod) -> None:
    """Put products of `method` in the place of all linear modules, one after the other: what was read is dropped."""
    for name in [name for name, *_ in linears(module)]:
        parent, _, own = name.rpartition(".")
        weight, bias = weights_of(module.get_submodule(name)) or (None, None)
        assert weight is not None
        with torch.no_grad():
            made = OwnLinear(method, weight.detach().contiguous(), None if bias is None else bias.detach())
        setattr(module.get_submodule(parent), own, made)


OTHER_PRODUCTS = (torch.matmul, torch.mm, torch.bmm, torch.addmm, torch.baddbmm, torch.einsum, Tensor.matmul)
OTHER_PRODUCTS += (Tensor.mm, Tensor.bmm, Tensor.__matmul__, F.conv1d)
"""Functions whose products are torch's own, which may sum in another order where there are other rows."""


class OwnProducts(TorchFunctionMode):
    """Makes calls of `torch.nn.functional.linear` our products, those of routers and of experts in loops."""

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func`, or ours."""
        return (linear_of_any if func is F.linear else func)(*args, **(kwargs or {}))


class ProductsSeen(TorchFunctionMode):
    """Notes whether weights outside linear modules go through `linear`, and whether any do through other products."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.linear, self.other = False, False
        self._replaced = {id(inner.weight) for inner in module.modules() if weights_of(inner) is not None}

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func`."""
        if func is F.linear or func in OTHER_PRODUCTS:
            weights = [arg for arg in args if _is_weight(arg) and id(arg) not in self._replaced]
            self.linear |= func is F.linear and bool(weights)
            self.other |= func is not F.linear and bool(weights)
        return func(*args, **(kwargs or {}))


def linear_of_any(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ weight.T + bias` for `x` `[..., inputs]`."""
    return linear(x.reshape(-1, x.shape[-1]), weight, bias).view(*x.shape[:-1], -1)


def _is_weight(arg: object) -> bool:
    return isinstance(arg, nn.Parameter) or (isinstance(arg, Tensor) and isinstance(arg._base, nn.Parameter))
