"""The compiled matrix products with packed weights: what Python calls, with shapes and types checked before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from umbel.kernels.memory import empty
from umbel.kernels.native.calls import INSTRUCTION_SETS

if INSTRUCTION_SETS:
    from umbel.kernels.native import _umbel

PANEL = 64  # columns of a panel
BLOCK = 512  # rows that are rounded at a time


class ProductForm(IntEnum):
    """What becomes of the sums, as `products.h` numbers it."""

    BFLOAT16 = 0
    FLOAT32 = 1
    GATED = 2
    GATED_FLOAT32 = 3


@dataclass(frozen=True, slots=True)
class Packed:
    """Weights `[outputs, inputs]` as panels (int32 `[panels, dwords, 64]`, see `native/products.h`), with zeros behind
    inputs that fill no whole dword. `gated`: the two halves of the outputs lie side by side in each panel."""

    panels: Tensor
    outputs: int
    inputs: int
    gated: bool


@dataclass(frozen=True, slots=True)
class PackedPart:
    """A product of the numbers from `at` on that another one made, added to the outputs from `begin` on."""

    at: int
    begin: int
    weight: Packed

    def check(self, numbers: int, outputs: int) -> None:
        """Raise ValueError where the part does not take some of so many numbers, or give some of `outputs`."""
        taken, given = self.at + self.weight.inputs, self.begin + self.weight.outputs
        if self.at < 0 or self.begin < 0 or taken > numbers or given > outputs or self.weight.gated:
            raise ValueError(f"a part takes {taken} of {numbers} numbers and gives {given} of {outputs} outputs")


@dataclass(frozen=True, slots=True)
class PackedPair:
    """A product of rows `begin` to `end`, and those of `parts` of what it makes."""

    begin: int
    end: int
    down: Packed
    parts: tuple[PackedPart, ...]

    def check(self, rows: int, inputs: int, outputs: int) -> None:
        """Raise ValueError where the pair does not take so many rows of `inputs`, or give `outputs`."""
        found = self.down.inputs
        if not 0 <= self.begin <= self.end <= rows or found != inputs or self.down.gated:
            raise ValueError(f"rows {self.begin} to {self.end} of {found} do not fit {rows} of {inputs}")
        for part in self.parts:
            part.check(self.down.outputs, outputs)


FORMS = {
    torch.bfloat16: (ProductForm.BFLOAT16, ProductForm.GATED),
    torch.float32: (ProductForm.FLOAT32, ProductForm.GATED_FLOAT32),
}
"""For rows of a type: what becomes of plain sums and of gated ones, so that the results are of that type."""

_GATED = (ProductForm.GATED, ProductForm.GATED_FLOAT32)


def make_out(weight: Packed, rows: int, form: ProductForm) -> Tensor:
    """Memory for the product of so many rows."""
    return torch.empty((rows, _width(weight)), dtype=torch.float32 if form in FORMS[torch.float32] else torch.bfloat16)


def _width(weight: Packed) -> int:
    """Outputs, behind the gate where there is one."""
    return weight.outputs // 2 if weight.gated else weight.outputs


def has_products(dtype: torch.dtype, instruction_set: str) -> bool:
    """Whether `FloatProducts` exist for rows of `dtype` and an instruction set on this processor."""
    if dtype == torch.bfloat16:
        return has_bfloat16(instruction_set)
    return (
        dtype == torch.float32
        and instruction_set in INSTRUCTION_SETS
        and bool(_umbel.has_float32_products(instruction_set))
    )


def has_bfloat16(instruction_set: str) -> bool:
    """Whether there are products of bfloat16 rows for an instruction set on this processor."""
    return instruction_set in INSTRUCTION_SETS and bool(_umbel.has_bfloat16_products(instruction_set))


def pack(weight: Tensor, *, gated: bool = False) -> Packed:
    """Copy weights (`[outputs, inputs]`, contiguous) into panels."""
    outputs, inputs = weight.shape
    if not weight.is_contiguous() or (gated and outputs % 2):
        raise ValueError(f"weights {tuple(weight.shape)} of {weight.dtype} cannot be packed")
    dwords = -(-inputs * weight.element_size() // 4)
    weight = _fill_up(weight, dwords)
    panels = empty((-(-outputs // PANEL), dwords, PANEL), torch.int32)
    _umbel.pack(weight.data_ptr(), panels.data_ptr(), outputs, dwords, gated, torch.get_num_threads())
    return Packed(panels, outputs, inputs, gated)


def unpack(packed: Packed, rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows (int64 `[n]`) of weights as they were before packing: `[n, inputs]`."""
    if packed.gated or (len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < packed.outputs):
        raise IndexError(f"rows {rows.tolist()[:8]} of {packed.outputs}")
    dwords = packed.panels.shape[1]
    out = torch.empty((len(rows), dwords * 4 // dtype.itemsize), dtype=dtype)
    addresses = packed.panels.data_ptr(), rows.contiguous().data_ptr(), out.data_ptr()
    _umbel.unpack(*addresses, len(rows), dwords, torch.get_num_threads())
    return out if out.shape[1] == packed.inputs else out[:, : packed.inputs].contiguous()


def whole_panels(packed: Packed) -> Packed:
    """Gated weights as those of a plain product, whose outputs are in the order of the panels: see `as_halves`."""
    return Packed(packed.panels, len(packed.panels) * PANEL, packed.inputs, gated=False)


def as_halves(product: Tensor, packed: Packed) -> Tensor:
    """The product of `whole_panels`, with the first half of the outputs before the second: `[rows, outputs]`."""
    halves = product.view(len(product), -1, 2, PANEL // 2).transpose(1, 2)
    return halves.flatten(2)[:, :, : packed.outputs // 2].flatten(1)


def _check_added(added: Tensor, shape: tuple[int, int], dtype: torch.dtype, *, gated: bool) -> None:
    """Raise ValueError for what cannot be added before a gate."""
    if not gated or added.shape != shape or added.dtype != dtype or not added.is_contiguous():
        kind = "a gate" if gated else "no gate"
        raise ValueError(f"{tuple(added.shape)} of {added.dtype} before {kind} for {shape} of {dtype}")


def _fill_up(rows: Tensor, dwords: int) -> Tensor:
    """Rows with zeros behind them, up to so many dwords; contiguous."""
    missing = dwords * 4 // rows.element_size() - rows.shape[1]
    return torch.nn.functional.pad(rows, (0, missing)) if missing else rows.contiguous()


class FloatProducts:
    """Products of rows with packed weights of the same `dtype`, bfloat16 or float32, summed in float32 in the order of
    the inputs: a row's bits depend neither on the other rows nor on the number of threads."""

    def __init__(self, instruction_set: str, dtype: torch.dtype):
        self._kernels = _umbel.FloatProducts(instruction_set, dtype == torch.bfloat16)
        self.dtype = dtype

    def multiply(
        self,
        x: Tensor,
        weight: Packed,
        bias: Tensor | None,
        form: ProductForm,
        out: Tensor | None = None,
        added: Tensor | None = None,
    ) -> Tensor:
        """`x @ weight.T + bias`: `[rows, inputs]` -> `[rows, outputs]`, or half as many when `form` is gated; `bias`
        is float32 `[outputs]` in the order of the panels (`panel_order`). The result is put into `out` where given.
        `added` (`[rows, outputs]`, gated forms only) is added before the gate."""
        if x.dtype != self.dtype or x.shape[1:] != (weight.inputs,) or weight.gated != (form in _GATED):
            raise ValueError(f"x {tuple(x.shape)} of {x.dtype} does not fit {weight.outputs} x {weight.inputs}")
        x = _fill_up(x, weight.panels.shape[1])
        outputs = weight.outputs // 2 if weight.gated else weight.outputs
        shape, dtype = (len(x), outputs), torch.float32 if form in FORMS[torch.float32] else torch.bfloat16
        out = torch.empty(shape, dtype=dtype) if out is None else out
        if out.shape != shape or out.dtype != dtype or not out.is_contiguous():
            raise ValueError(f"out {tuple(out.shape)} of {out.dtype} for {shape} of {dtype}")
        if added is not None:
            _check_added(added, (len(x), weight.outputs), self.dtype, gated=weight.gated)
        given = x, weight.panels, bias, added, out
        addresses = (0 if tensor is None else tensor.data_ptr() for tensor in given)
        sizes = len(x), weight.panels.shape[1], outputs
        self._kernels.multiply(*addresses, *sizes, int(form), torch.get_num_threads())
        return out

    def add_pairs(self, x: Tensor, product: Tensor, pairs: Sequence[PackedPair]) -> None:
        """Add to `product` (`[rows, outputs]`), in place, what pairs make of their rows of `x` (`[rows, inputs]`): with
        the bits of two products and a sum, and the threads called once for all of them."""
        if not (x.dtype == product.dtype == self.dtype and x.is_contiguous() and product.is_contiguous()):
            raise ValueError(f"x is {x.dtype}, the product {product.dtype}, pairs {self.dtype}: or not side by side")
        in_dword, inputs = 4 // x.element_size(), x.shape[1]
        dwords, numbers, parts = -(-inputs // in_dword), list[int](), list[int]()
        x = _fill_up(x, dwords)
        for pair in pairs:
            pair.check(len(x), inputs, product.shape[1])
            width = -(-pair.down.outputs // in_dword)
            numbers += pair.begin, pair.end - pair.begin, pair.down.panels.data_ptr(), width, len(pair.parts)
            for part in pair.parts:
                if part.at % in_dword:
                    raise ValueError(f"a part takes numbers from {part.at} on, {in_dword} of which lie side by side")
                weight = part.weight
                size = weight.panels.shape[1]
                parts += part.at // in_dword, size, weight.panels.data_ptr(), part.begin, weight.outputs
        addresses, threads = (x.data_ptr(), product.data_ptr()), torch.get_num_threads()
        self._kernels.add_pairs(*addresses, dwords, product.shape[1], numbers, parts, threads)


@dataclass(frozen=True, slots=True)
class Int8Weights:
    """Weights as `round(w / scale)` with a scale per output: packed, the scales (float32) and what to add to the sums,
    -128 times the sum of each output's weights (int32), both in the order of the panels."""

    packed: Packed
    scale: Tensor
    correction: Tensor


def int8_weights(weight: Tensor, *, gated: bool = False) -> Int8Weights:
    """Quantise weights (`[outputs, inputs]`) symmetrically, each output by its largest value, and pack them."""
    scale = weight.abs().amax(1).to(torch.float32) / 127.0
    steps, whole = (
        scale.clamp_min(torch.finfo(torch.float32).tiny).unsqueeze(1),
        torch.empty_like(weight, dtype=torch.int8),
    )
    for at in range(0, len(weight), BLOCK):  # copies in float32 of all of it would be four times what is loaded
        some = slice(at, at + BLOCK)
        whole[some] = (weight[some] / steps[some]).round_()
    correction = panel_order(-128.0 * whole.sum(1, dtype=torch.float32), gated=gated).to(torch.int32)
    return Int8Weights(pack(whole, gated=gated), panel_order(scale, gated=gated), correction)


class Int8Products:
    """Products of rows and int8 weights: each row is quantised by its own largest value, sums are exact in int32, so a
    row's bits depend neither on the other rows nor on the number of threads."""

    def __init__(self, instruction_set: str):
        self._kernels = _umbel.Int8Products(instruction_set)

    def quantise(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (bfloat16 or float32) as 128 + int8 (uint8, same shape), and the scale of each row."""
        if x.dtype not in (torch.bfloat16, torch.float32) or x.ndim != 2:
            raise ValueError(f"x {tuple(x.shape)} of {x.dtype} cannot be quantised")
        x = x.contiguous()
        out, scale = torch.empty(x.shape, dtype=torch.uint8), torch.empty(len(x), dtype=torch.float32)
        addresses, narrow = (x.data_ptr(), out.data_ptr(), scale.data_ptr()), x.dtype == torch.bfloat16
        self._kernels.quantise(addresses[0], narrow, *addresses[1:], *x.shape, torch.get_num_threads())
        return out, scale

    def multiply(
        self, x: Tensor, weight: Int8Weights, bias: Tensor | None, form: ProductForm, out: Tensor | None = None
    ) -> Tensor:
        """`x @ weight.T + bias` as in FloatProducts; `x` is bfloat16 or float32."""
        packed = weight.packed
        if x.shape[1:] != (packed.inputs,) or packed.gated != (form is ProductForm.GATED):
            raise ValueError(f"x {tuple(x.shape)} does not fit {packed.outputs} x {packed.inputs}")
        whole, row_scale = self.quantise(x)
        if whole.shape[1] % 4:
            whole = torch.nn.functional.pad(whole, (0, -whole.shape[1] % 4))  # what meets weights of zero
        made = make_out(packed, len(x), form) if out is None else out
        if made.shape != (len(x), _width(packed)) or made.dtype not in FORMS or not made.is_contiguous():
            raise ValueError(f"out {tuple(made.shape)} of {made.dtype} for {len(x)} rows of {_width(packed)}")
        addresses = whole.data_ptr(), packed.panels.data_ptr(), 0 if bias is None else bias.data_ptr(), made.data_ptr()
        sizes, scales = (len(x), packed.panels.shape[1], made.shape[1]), (row_scale, weight.scale, weight.correction)
        self._kernels.multiply(*addresses, *sizes, int(form), *(t.data_ptr() for t in scales), torch.get_num_threads())
        return made


def panel_order(values: Tensor, *, gated: bool = False) -> Tensor:
    """Float32 copies of what belongs to each output, `[outputs]` -> `[panels * 64]`, in the order of the panels."""
    n = len(values)
    if not gated:
        return torch.nn.functional.pad(values.to(torch.float32), (0, -n % PANEL))
    halves = values.to(torch.float32).view(2, n // 2)
    halves = torch.nn.functional.pad(halves, (0, -(n // 2) % (PANEL // 2)))
    return halves.view(2, -1, PANEL // 2).transpose(0, 1).reshape(-1)
