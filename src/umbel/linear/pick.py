"""Which way of making products a model gets on the device it is on."""

from __future__ import annotations

import torch

from umbel import registry
from umbel.errors import UsageError
from umbel.kernels.dispatch import kernels
from umbel.kernels.native.products import has_products
from umbel.linear.base import LinearMethod, Site
from umbel.linear.dense import DenseMethod
from umbel.linear.packed import PackedMethod

BY_NIBBLES = ("int4", "int4-head8")
"""Methods that a processor has for weights that are int4 already."""


def pick_linear(
    dtype: torch.dtype, device: torch.device, asked: str = "dense", *, packed: bool = False
) -> LinearMethod:
    """How products are made: dense (compiled where there are products of the type for the processor, else by torch), or
    by the method of the catalogue that was `asked` for; weights that come `packed` in 4 bits have one of their own,
    which on a processor can be asked for too, to multiply in int8. Raises UsageError for another one then, and where a
    method cannot work on the device."""
    if packed and (asked not in ("dense", *BY_NIBBLES) or (asked != "dense" and device.type != "cpu")):
        raise UsageError(f"linear={asked!r}: this model's weights are int4 already; leave linear (--linear) out")
    dense, name = _dense(dtype, device), "int4" if packed and asked == "dense" else asked
    if name == "dense":
        return dense
    method: LinearMethod = registry.load("linear", name, Site(dtype, device, dense, packed, asked != "dense"))
    return method


def _dense(dtype: torch.dtype, device: torch.device) -> LinearMethod:
    native = kernels().native
    if native is None or device.type != "cpu" or not has_products(dtype, native.instruction_set):
        return DenseMethod()
    return PackedMethod(native.instruction_set, dtype)
