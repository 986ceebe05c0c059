"""Weights in 8 bits, and 4-bit floats, as the floats that they stand for: `(value - zero) * scale`, rounded once.

Stored are a layer's values, the scales of its rows, groups of inputs or blocks, and maybe zero points; whatever the
names and packings, that is what all of them come to. FP8 and NVFP4, MXFP4 and MXFP8 (OCP Microscaling, 2310.10537) have
floats as values and, the latter two, powers of two as scales.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from umbel.errors import ModelError
from umbel.models.coded_config import CodedFormat
from umbel.models.sources.base import StoredTensor, StoredTensors
from umbel.models.sources.finite import check_finite
from umbel.models.tensor_file import DTYPES

BYTES = ("F8_E4M3", "F8_E5M2", "I8")
PIECE = 2**15 - 1  # numbers that are decoded at a time: they stay in cache, and torch leaves them to one thread
HALVES = (0, 1, 2, 3, 4, 6, 8, 12)
"""What the 4-bit floats 0 0.5 1 1.5 2 3 4 6 are in halves; with the fourth bit they are negative."""

BESIDE = re.compile(r"\.(input_scale|output_scale|input_global_scale|input_zero_point|[kqv]_scale|[kqv]_zero_point)$")
"""Tensors for rounding activations and KV, which are not rounded."""


@dataclass(frozen=True, slots=True)
class Coded:
    """A matrix `[outputs, inputs]` as stored, unpacked.

    `values`: in a type of 8 bits. `scales` and `zeros`: float32 `[rows, columns]`, of which each counts for as many
    rows and columns of the matrix as `steps` says. `columns`: which column of them an input has, where that is no step.
    """

    values: Tensor
    scales: Tensor
    steps: tuple[int, int]
    zeros: Tensor | None = None
    columns: Tensor | None = None

    def rows(self, begin: int, end: int) -> Tensor:
        """Some rows of the matrix, in float32."""
        whole = self.values[begin:end].to(torch.float32)
        groups, count = whole, self.scales.shape[1]
        if self.columns is None and count * self.steps[1] == whole.shape[1]:
            groups = whole.view(len(whole), count, self.steps[1])
        if self.zeros is not None:
            groups -= self._spread(self.zeros, begin, end, groups)
        groups *= self._spread(self.scales, begin, end, groups)
        return whole

    def _spread(self, each: Tensor, begin: int, end: int, groups: Tensor) -> Tensor:
        """Scales or zeros of some rows, for each group of inputs or for each input."""
        own = each[torch.arange(begin, end) // self.steps[0]] if len(each) > 1 else each
        if groups.ndim == 3:
            return own.unsqueeze(2)
        inputs = torch.arange(groups.shape[1])
        return own[:, inputs // self.steps[1] if self.columns is None else self.columns]


@dataclass(frozen=True, slots=True)
class DecodedWeight:
    """A tensor that is decoded."""

    shape: tuple[int, ...]
    layer: str
    dtype: str = "F32"


class CodedTensors:
    """The tensors of a checkpoint, those of coded layers under the names of plain weights. Making one raises ModelError
    for layers that lack what decoding needs."""

    def __init__(self, tensors: StoredTensors, form: CodedFormat):
        self._tensors, self._form = tensors, form
        found, used = dict[str, StoredTensor](), set[str]()
        for layer, mark in _layers(tensors.entries):
            names = [f"{layer}.{end}" for end in (mark, *MARKS[mark].beside)]
            used.update(name for name in names if name in tensors.entries)
            found[f"{layer}.weight"] = DecodedWeight(self._shape(layer, mark), layer)
        plain = {name: entry for name, entry in tensors.entries.items() if name not in used and not BESIDE.search(name)}
        self.entries: Mapping[str, StoredTensor] = plain | found
        self._layers = {name: mark for name, mark in _layers(tensors.entries)}

    def read_into(self, name: str, whole: Tensor) -> None:
        """Fill a tensor of its shape. Raises ModelError for numbers that are not finite, or do not fit each other."""
        entry = self.entries[name]
        if not isinstance(entry, DecodedWeight):
            self._tensors.read_into(name, whole)
            return
        mark = MARKS[self._layers[entry.layer]]
        parts = {end: self._read(f"{entry.layer}.{end}") for end in (self._layers[entry.layer], *mark.beside)}
        try:
            coded = mark.decode(self._form, entry.shape, {end: part for end, part in parts.items() if part is not None})
        except ModelError as error:
            raise ModelError(f"tensor {name}: {error}") from None
        count = max(PIECE // max(entry.shape[1], 1), 1)
        for begin in range(0, entry.shape[0], count):
            rows = coded.rows(begin, min(begin + count, entry.shape[0]))
            check_finite(name, rows)
            whole[begin : begin + count].copy_(rows)

    def _read(self, name: str) -> Tensor | None:
        entry = self._tensors.entries.get(name)
        if entry is None:
            return None
        whole = torch.empty(entry.shape, dtype=_dtype(name, entry))
        self._tensors.read_into(name, whole)
        return whole

    def _shape(self, layer: str, mark: str) -> tuple[int, ...]:
        """The shape of a layer's weight; raises ModelError where something of it is missing."""
        entries, coding = self._tensors.entries, MARKS[mark]
        if not any(f"{layer}.{end}" in entries for end in coding.scales):
            raise ModelError(f"tensor {layer}.{mark} is {entries[f'{layer}.{mark}'].dtype}, and has no scale")
        shape = entries[f"{layer}.{mark}"].shape
        if len(shape) != 2:
            raise ModelError(f"tensor {layer}.{mark} is {list(shape)}: must be a matrix")
        whole = coding.shape(self._form, shape, entries[f"{layer}.{mark}"].dtype)
        if mark != "weight_packed" or (stated := self._read(f"{layer}.weight_shape")) is None:
            return whole
        # The last word of a row may be filled up; anything else contradicts what is stored.
        sizes = tuple(stated.tolist())
        if len(sizes) != 2 or sizes[0] != whole[0] or not 0 <= whole[1] - sizes[1] < 32 // self._form.bits:
            raise ModelError(f"tensor {layer}.weight_shape says {list(sizes)}, stored are {list(whole)}")
        return sizes


def _layers(entries: Mapping[str, StoredTensor]) -> Iterator[tuple[str, str]]:
    """The coded layers, each with the name of the tensor that holds its values."""
    for name, entry in entries.items():
        layer, _, end = name.rpartition(".")
        if end in MARKS and (end != "weight" or entry.dtype in BYTES):
            yield layer, end


def _dtype(name: str, entry: StoredTensor) -> torch.dtype:
    if entry.dtype not in DTYPES:
        raise ModelError(f"tensor {name} is {entry.dtype}, which cannot be read")
    return DTYPES[entry.dtype]


Parts = Mapping[str, Tensor]


def _of_bytes(form: CodedFormat, shape: tuple[int, ...], parts: Parts) -> Coded:
    """A value a byte: `weight`, with `weight_scale` or, as DeepSeek has it, `weight_scale_inv`."""
    stored = parts["weight_scale_inv"] if "weight_scale_inv" in parts else parts["weight_scale"]
    scales, steps = _grid(form, shape, stored)
    return Coded(parts["weight"], scales, steps, _zeros(form, scales, parts.get("weight_zero_point")))


def _packed(form: CodedFormat, shape: tuple[int, ...], parts: Parts) -> Coded:
    """compressed-tensors' `weight_packed`: integers in words of 32 bits, or two 4-bit floats in a byte."""
    packed = parts["weight_packed"]
    if packed.dtype == torch.uint8:
        return _of_halves(form, shape, parts)
    values = _unpacked(packed, form.bits)[:, : shape[1]]
    groups, zeros = parts.get("weight_g_idx"), parts.get("weight_zero_point")
    scales, steps = _grid(form, shape, parts["weight_scale"])
    if zeros is not None:
        zeros = _unpacked(zeros.t().contiguous(), form.bits)[:, : len(scales)].t().contiguous()
    return Coded(values, scales, steps, _zeros(form, scales, zeros), _columns(groups, shape, scales))


def _of_halves(form: CodedFormat, shape: tuple[int, ...], parts: Parts) -> Coded:
    packed, table = parts["weight_packed"], torch.tensor([*HALVES, *(-n for n in HALVES)], dtype=torch.int8)
    values = table[torch.stack((packed & 15, packed >> 4), -1).flatten(1).int()]
    scales, steps = _grid(form, shape, parts["weight_scale"])
    if "weight_global_scale" in parts:
        scales = scales / parts["weight_global_scale"].float()
    return Coded(values, scales * 0.5, steps)


def _gptq(form: CodedFormat, shape: tuple[int, ...], parts: Parts) -> Coded:
    """GPTQ in 8 bits: four inputs of an output in a word, zero points of four outputs."""
    values = parts["qweight"].t().contiguous().view(torch.uint8)
    scales, steps = _grid(form, shape, parts["scales"].t())
    if "qzeros" not in parts:
        raise ModelError("has no qzeros")
    zeros = parts["qzeros"].contiguous().view(torch.uint8).t().float() + form.adds_one
    if zeros.shape != scales.shape:
        raise ModelError(f"has zero points of {list(zeros.shape)} and scales of {list(scales.shape)}")
    if form.adds_one and (zeros > 255).any():
        raise ModelError("has a zero point of 255 where one is added to it: readers differ on what it means")
    return Coded(values, scales, steps, zeros, _columns(parts.get("g_idx"), shape, scales))


def _grid(form: CodedFormat, shape: tuple[int, ...], stored: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Scales as float32 `[rows, columns]`, and how many rows and columns of the matrix each counts for."""
    scales = torch.exp2(stored.float() - 127) if stored.dtype == torch.uint8 else stored.float()
    scales = scales.reshape(-1, 1) if scales.ndim < 2 else scales
    (outputs, inputs), (rows, columns) = shape, scales.shape
    if form.block and (rows, columns) == tuple(-(-n // step) for n, step in zip(shape, form.block, strict=True)):
        return scales, form.block
    if rows not in (1, outputs) or (columns and inputs % columns) or not columns:
        raise ModelError(f"has scales of {list(stored.shape)} for a weight of {list(shape)}")
    return scales, (1, inputs // columns)


def _zeros(form: CodedFormat, scales: Tensor, stored: Tensor | None) -> Tensor | None:
    if stored is None:
        return None
    zeros = stored.float().reshape(scales.shape) if stored.numel() == scales.numel() else None
    if zeros is None:
        raise ModelError(f"has zero points of {list(stored.shape)} and scales of {list(scales.shape)}")
    if form.symmetric and zeros.any():
        raise ModelError("has zero points, although config.json says that its weights are symmetric")
    return zeros


def _columns(groups: Tensor | None, shape: tuple[int, ...], scales: Tensor) -> Tensor | None:
    """The group of each input, where they are in an order of their own."""
    if groups is None:
        return None
    if groups.shape != (shape[1],) or groups.min() < 0 or groups.max() >= scales.shape[1]:
        raise ModelError(f"has groups of inputs that are not 0 to {scales.shape[1] - 1}, one for each of {shape[1]}")
    return groups.long()


def _unpacked(words: Tensor, bits: int) -> Tensor:
    """Rows of int32 as their signed numbers (int8 `[rows, 32 / bits * words]`), the first in the lowest bits."""
    pairs = words.contiguous().view(torch.uint8)
    values = torch.stack((pairs & 15, pairs >> 4), -1).flatten(1) if bits == 4 else pairs
    return (values.to(torch.int16) - 2 ** (bits - 1)).to(torch.int8)


def _of_words(form: CodedFormat, shape: tuple[int, ...], dtype: str) -> tuple[int, ...]:
    each = 2 if dtype == "U8" else 32 // form.bits
    return shape[0], shape[1] * each


@dataclass(frozen=True, slots=True)
class Coding:
    """A way of storing: the scales that it may have, what else stands beside the values, the shape of the weight that
    values of a shape and type are, and how they are decoded."""

    scales: tuple[str, ...]
    others: tuple[str, ...]
    shape: Callable[[CodedFormat, tuple[int, ...], str], tuple[int, ...]]
    decode: Callable[[CodedFormat, tuple[int, ...], Parts], Coded]

    @property
    def beside(self) -> tuple[str, ...]:
        """All tensors beside the values."""
        return self.scales + self.others


MARKS: Mapping[str, Coding] = {
    "weight": Coding(
        ("weight_scale", "weight_scale_inv"), ("weight_zero_point",), lambda _, stored, dtype: stored, _of_bytes
    ),
    "weight_packed": Coding(
        ("weight_scale",),
        ("weight_global_scale", "weight_g_idx", "weight_shape", "weight_zero_point"),
        _of_words,
        _packed,
    ),
    "qweight": Coding(
        ("scales",), ("qzeros", "g_idx"), lambda form, stored, _: (stored[1], stored[0] * 32 // form.bits), _gptq
    ),
}
"""By the name of the tensor that holds a layer's values."""
