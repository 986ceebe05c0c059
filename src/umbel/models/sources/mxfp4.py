"""Experts that a checkpoint keeps in MXFP4 (OCP microscaling formats, 2310.10537), read as the floats they stand for.

Each 32 inputs of an output share a byte, the exponent of their scale; a number is 4 bits, two in a byte, the first in
the lower half: a sign, two bits of exponent and one of mantissa. Every value is one of bfloat16 too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from umbel.errors import ModelError
from umbel.models.sources.base import StoredTensor, StoredTensors
from umbel.models.sources.finite import check_finite

BLOCKS, SCALES, BYTES = "_blocks", "_scales", 16
BIAS = 127  # of the exponent of a scale
VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)


@dataclass(frozen=True, slots=True)
class Decoded:
    """A tensor as it will be read: `[experts, inputs, outputs]`, as transformers has it."""

    shape: tuple[int, ...]
    dtype: str = "F32"


class Mxfp4Tensors:
    """The tensors of a checkpoint, with pairs of blocks and scales as the one tensor that they stand for. Making one
    raises ModelError for pairs that do not fit each other."""

    def __init__(self, stored: StoredTensors):
        self._stored = stored
        names = [n.removesuffix(BLOCKS) for n in stored.entries if n.endswith(BLOCKS)]
        self._packed = frozenset(names)
        halves = {f"{name}{part}" for name in names for part in (BLOCKS, SCALES)}
        plain = {name: entry for name, entry in stored.entries.items() if name not in halves}
        self.entries: Mapping[str, StoredTensor] = plain | {name: self._decoded(name) for name in names}

    def read_into(self, name: str, whole: Tensor) -> None:
        """Fill a tensor of its shape. Raises ModelError for numbers that are not finite and for files that changed."""
        if name not in self._packed:
            self._stored.read_into(name, whole)
            return
        blocks, scales = (self._bytes(f"{name}{part}") for part in (BLOCKS, SCALES))
        for expert, (numbers, exponents) in enumerate(zip(blocks, scales, strict=True)):
            floats = decode_mxfp4(numbers, exponents)
            check_finite(name, floats)
            whole[expert].copy_(floats.t())

    def _decoded(self, name: str) -> Decoded:
        blocks, scales = self._halves(name)
        shape = blocks.shape
        if len(shape) != 4 or shape[3] != BYTES or scales.shape != shape[:3] or {blocks.dtype, scales.dtype} != {"U8"}:
            raise ModelError(
                f"tensor {name}: blocks {list(shape)} of {blocks.dtype} and scales {list(scales.shape)} of "
                f"{scales.dtype} are not MXFP4"
            )
        return Decoded((shape[0], shape[2] * 2 * BYTES, shape[1]))

    def _halves(self, name: str) -> tuple[StoredTensor, StoredTensor]:
        entries = self._stored.entries
        if f"{name}{SCALES}" not in entries:
            raise ModelError(f"tensor {name}{BLOCKS} has no {name}{SCALES} beside it")
        return entries[f"{name}{BLOCKS}"], entries[f"{name}{SCALES}"]

    def _bytes(self, name: str) -> Tensor:
        raw = torch.empty(self._stored.entries[name].shape, dtype=torch.uint8)
        self._stored.read_into(name, raw)
        return raw


def decode_mxfp4(blocks: Tensor, scales: Tensor) -> Tensor:
    """Blocks (uint8 `[outputs, groups, 16]`) times two to the power of scales (uint8 `[outputs, groups]`, less 127):
    float32 `[outputs, 32 * groups]`."""
    values = torch.tensor(VALUES)
    both = torch.stack((values[(blocks & 15).int()], values[(blocks >> 4).int()]), -1)
    return torch.ldexp(both.flatten(2), scales.int().unsqueeze(-1) - BIAS).flatten(1)
