"""Reads the 4-bit weights of one layer of a checkpoint, checked, into the one form that products know.

All three ways of storing them put eight nibbles into an int32, the first in its lowest bits. GPTQ packs along inputs,
and zero points along outputs, version 1 with every zero point less by one; AWQ packs both along outputs, eight of them
in the order 0 2 4 6 1 3 5 7; compressed-tensors packs along inputs what was -8 to 7, 8 added, and zero points along
outputs. GPTQ with activation order has a group for each input (`g_idx`): such weights are read as the floats they
stand for.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from umbel.errors import ModelError
from umbel.ir.int4_format import Int4Format
from umbel.kernels.int4 import MIDDLE, MOST, Int4Weight, pack_nibbles
from umbel.models.int4_config import PRODUCTS
from umbel.models.parts import Part

INTS = ("I32",)
WHOLE = ("I32", "I64")
AWQ_PLACES = (0, 4, 1, 5, 2, 6, 3, 7)
"""Where each of eight outputs stands in AWQ's order."""

Read = Callable[[str], Tensor]
"""Gives a tensor of the checkpoint by its name; floats have been found finite."""


def is_packed(form: Int4Format | None, name: str) -> bool:
    """Whether our tensor ("layers.3.down") is stored in 4 bits."""
    if form is None or form.packing == "loading":
        return False
    return name.rsplit(".", 1)[-1] in PRODUCTS and name not in form.plain


def packed_parts(form: Int4Format, weight: Part) -> tuple[Part, ...]:
    """The tensors that hold a layer's weight (`<layer>.weight`, `[outputs, inputs]`). Raises ModelError where its sizes
    cannot be packed so."""
    layer, (outputs, inputs) = weight.name.removesuffix(".weight"), weight.shape
    groups = -(-inputs // form.group_of(inputs))
    if form.packing == "compressed-tensors":
        parts = [
            Part(f"{layer}.weight_packed", (outputs, -(-inputs // 8)), INTS),
            Part(f"{layer}.weight_scale", (outputs, groups)),
            Part(f"{layer}.weight_shape", (2,), WHOLE),
        ]
        parts += [Part(f"{layer}.weight_zero_point", (-(-outputs // 8), groups), INTS)] if form.zeros else []
        packed = 2  # of inputs that share a byte
    else:
        awq = form.packing == "awq"
        parts = [
            Part(f"{layer}.qweight", (inputs, outputs // 8) if awq else (inputs // 8, outputs), INTS),
            Part(f"{layer}.qzeros", (groups, outputs // 8), INTS),
            Part(f"{layer}.scales", (groups, outputs)),
        ]
        if not awq:
            parts += [Part(f"{layer}.g_idx", (inputs,), WHOLE, needed=form.act_order)]
            parts += [Part(f"{layer}.bias", (outputs,), needed=False)]  # zeros, which old writers add
        packed = 2 if awq else 8
    if inputs % packed or (form.packing != "compressed-tensors" and outputs % 8):
        raise ModelError(f"{layer}: {outputs} outputs and {inputs} inputs cannot be packed as {form.packing}")
    return tuple(parts)


def read_packed(form: Int4Format, weight: Part, read: Read, has: Callable[[str], bool]) -> Int4Weight | Tensor:
    """The weight of a layer, whose tensors have the shapes of `packed_parts`: 4 bits, or float32 (`[outputs, inputs]`)
    under activation order. Raises ModelError for numbers that cannot be."""
    layer, (outputs, inputs) = weight.name.removesuffix(".weight"), weight.shape
    group = form.group_of(inputs)
    if form.packing == "compressed-tensors":
        return _compressed(form, layer, (outputs, inputs), read)
    scales = _scales(read(f"{layer}.scales").t())
    if form.packing == "awq":
        nibbles, zeros = (_awq_order(_nibbles(read(f"{layer}.{n}"))) for n in ("qweight", "qzeros"))
        _check_symmetric(form, layer, zeros)
        return Int4Weight(pack_nibbles(nibbles.t()), scales, zeros.t().contiguous(), group)
    packed = read(f"{layer}.qweight").t().contiguous().view(torch.uint8)
    zeros = _nibbles(read(f"{layer}.qzeros")).t().contiguous()
    if form.packing == "gptq":
        if (zeros == MOST).any():
            raise ModelError(f"{layer}.qzeros has {MOST} where one is added to it: readers differ on what it means")
        zeros = zeros + 1
    _check_symmetric(form, layer, zeros)
    at = torch.arange(inputs) // group
    if has(f"{layer}.g_idx"):
        stated, groups = read(f"{layer}.g_idx").long(), scales.shape[1]
        low, high = stated.aminmax()
        if low < 0 or high >= groups:
            raise ModelError(f"{layer}.g_idx goes from {int(low)} to {int(high)}: there are {groups} groups")
        if not form.act_order and not torch.equal(stated, at):
            raise ModelError(f"{layer}.g_idx is not in order of the groups, although config.json has desc_act=false")
        at = stated
    if not form.act_order:
        return Int4Weight(packed, scales, zeros, group)
    return (_halves(packed).float() - zeros.float()[:, at]) * scales.float()[:, at]


def check_zero_bias(weight: Part, read: Read, has: Callable[[str], bool]) -> None:
    """Raise ModelError if a layer of a model that has no biases comes with one that says something."""
    name = weight.name.removesuffix("weight") + "bias"
    if has(name) and read(name).any():
        raise ModelError(f"tensor {name} is not zero, but config.json says that these layers have no bias")


def _check_symmetric(form: Int4Format, layer: str, zeros: Tensor) -> None:
    if form.symmetric and not (zeros == MIDDLE).all():
        wrong = int(zeros[zeros != MIDDLE][0])
        raise ModelError(
            f"{layer}.qzeros has a zero point of {wrong}, although config.json has sym=true, which makes it {MIDDLE}: "
            "readers differ on which counts; correct sym or checkpoint_format"
        )


def _compressed(form: Int4Format, layer: str, shape: tuple[int, int], read: Read) -> Int4Weight:
    outputs, inputs = shape
    stated = read(f"{layer}.weight_shape").tolist()
    if stated != [outputs, inputs]:
        raise ModelError(f"tensor {layer}.weight_shape says {stated}, config.json makes it {[outputs, inputs]}")
    nibbles = read(f"{layer}.weight_packed").view(torch.uint8)[:, : inputs // 2].contiguous()
    scales = _scales(read(f"{layer}.weight_scale"))
    if not form.zeros:
        return Int4Weight(nibbles, scales, torch.full(scales.shape, MIDDLE, dtype=torch.uint8), form.group_of(inputs))
    zeros = _nibbles(read(f"{layer}.weight_zero_point").t())[:, :outputs].t().contiguous()
    return Int4Weight(nibbles, scales, zeros, form.group_of(inputs))


def _nibbles(words: Tensor) -> Tensor:
    """Rows of int32 (`[rows, words]`) as their nibbles (uint8 `[rows, 8 * words]`)."""
    return _halves(words.contiguous().view(torch.uint8))


def _halves(pairs: Tensor) -> Tensor:
    """Rows of bytes as their halves, low ones first."""
    return torch.stack((pairs & 15, pairs >> 4), -1).flatten(1)


def _awq_order(values: Tensor) -> Tensor:
    """Eights of outputs (`[rows, outputs]`) put into their natural order."""
    return values.view(len(values), -1, 8)[:, :, AWQ_PLACES].flatten(1)


def _scales(stored: Tensor) -> Tensor:
    """The scales in 16 bits where they were stored so, else in float32."""
    return stored.contiguous() if stored.dtype.itemsize == 2 else stored.to(torch.float32).contiguous()
