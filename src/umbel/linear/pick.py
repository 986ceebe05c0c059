"""Which way of making products a model gets on the device it is on."""

from __future__ import annotations

import torch

from umbel.errors import UsageError
from umbel.kernels.dispatch import kernels
from umbel.kernels.native.products import has_bfloat16
from umbel.linear.base import LinearMethod
from umbel.linear.bfloat16 import PackedMethod
from umbel.linear.dense import DenseMethod
from umbel.linear.fp8 import Fp8Method
from umbel.linear.int4 import Int4Method
from umbel.linear.int8 import Int8Method


def pick_linear(
    dtype: torch.dtype, device: torch.device, asked: str = "dense", *, packed: bool = False
) -> LinearMethod:
    """How products are made: compiled for bfloat16 on a processor that multiplies in it, else by torch; in int8, int4
    or fp8 if asked, and as they are if the weights come `packed` in 4 bits. Raises UsageError where nothing multiplies
    in int8, and for packed weights in anything else."""
    if packed and asked != "dense":
        raise UsageError(f"linear={asked!r}: this model's weights are int4 already; leave linear (--linear) out")
    if packed or asked == "int4":
        return Int4Method(dtype, _dense(dtype, device), rounds=not packed)
    if asked == "dense":
        return _dense(dtype, device)
    if asked == "fp8":
        return Fp8Method(device, _dense(dtype, device))
    choice = kernels()
    if choice.native is None or device.type != "cpu":
        raise UsageError(f"linear='int8' needs compiled kernels and a CPU; here: {device.type}, {choice.reason}")
    return Int8Method(choice.native.instruction_set, _dense(dtype, device))


def _dense(dtype: torch.dtype, device: torch.device) -> LinearMethod:
    native = kernels().native
    if native is None or device.type != "cpu" or dtype != torch.bfloat16 or not has_bfloat16(native.instruction_set):
        return DenseMethod()
    return PackedMethod(native.instruction_set)
