"""The tensors of a GGUF file under the names that transformers gives them, decoded as they are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from umbel.models.sources.finite import check_finite
from umbel.models.sources.gguf_architectures import TOP, Architecture
from umbel.models.sources.gguf_config import EXACT, FACTORS
from umbel.models.sources.gguf_header import GgufHeader, GgufTensor, gguf_package
from umbel.models.tensor_file import TensorFile

NAMES = {"F32": "F32", "F16": "F16", "BF16": "BF16"}
HALVED = ("attn_q", "attn_k")
BLOCK_BYTES = 2**22  # of what is read as it is
PIECE = 2**15 - 1  # numbers that are decoded at a time: they stay in cache, and torch leaves them to one thread


@dataclass(frozen=True, slots=True)
class GgufEntry:
    """One tensor: what is stored, and `heads` whose rotary pairs stand side by side (0: none do). `adds_one`: it is
    stored with one added."""

    stored: GgufTensor
    dtype: str
    shape: tuple[int, ...]
    offset: int
    n_bytes: int
    heads: int = 0
    adds_one: bool = False


class GgufTensors:
    """Every tensor of a file, read when it is asked for."""

    def __init__(self, header: GgufHeader, row: Architecture, heads: Mapping[str, int]):
        """`heads` of queries and of keys, by the names of their products."""
        self.entries = dict(_entries(header, row, heads))
        self._file, self._gguf = TensorFile(header.path), gguf_package()

    def read_into(self, name: str, whole: Tensor) -> None:
        """Fill a tensor of its shape. Raises ModelError for numbers that are not finite and for a file that changed."""
        entry, at = self.entries[name], 0
        flat = whole.view(-1)
        for block in self._blocks(entry):
            check_finite(name, block)
            flat[at : at + len(block)].copy_(block.float() - 1 if entry.adds_one else block)
            at += len(block)
        if entry.heads:
            pairs = whole.view(entry.heads, -1, 2, *whole.shape[1:]).transpose(1, 2)
            whole.copy_(pairs.reshape(whole.shape))

    def _blocks(self, entry: GgufEntry) -> Iterator[Tensor]:
        """The values of a tensor in order, in pieces."""
        kind = self._gguf.GGMLQuantizationType[entry.stored.kind]
        block, step = self._gguf.GGML_QUANT_SIZES[kind]
        most = BLOCK_BYTES if entry.stored.kind in EXACT else PIECE // block * step
        for at in range(0, entry.n_bytes, most):
            raw = torch.empty(min(most, entry.n_bytes - at), dtype=torch.uint8)
            self._file.read_bytes(entry.offset + at, raw)
            yield _decoded(self._gguf, kind, raw)


def _decoded(gguf: Any, kind: Any, raw: Tensor) -> Tensor:
    """The values that bytes of a type stand for: as they are, or as float32."""
    if kind.name in EXACT:
        return raw.view(getattr(torch, EXACT[kind.name]))
    with np.errstate(all="ignore"):  # what is not finite is found by looking at it
        return torch.from_numpy(gguf.quants.dequantize(raw.numpy(), kind))  # as one row: it takes rows by sixteens


def _entries(header: GgufHeader, row: Architecture, heads: Mapping[str, int]) -> Iterator[tuple[str, GgufEntry]]:
    for tensor in header.tensors.values():
        if tensor.name == FACTORS:
            continue
        part, _, end = tensor.name.rpartition(".")
        block, layer, inner = (*part.split(".", 2), "", "")[:3]
        adds_one = row.adds_one and part.endswith("norm")
        whole = GgufEntry(
            tensor, NAMES.get(tensor.kind, "F32"), tensor.shape, tensor.offset, tensor.n_bytes, adds_one=adds_one
        )
        if part in TOP:
            yield f"{TOP[part]}.{end}", whole
        elif block != "blk" or inner not in row.tensors:
            yield tensor.name, whole
        else:
            whole = replace(whole, heads=heads[inner] if row.in_pairs and inner in HALVED else 0)
            yield from _of_layer(f"model.layers.{layer}.{row.tensors[inner]}.{end}", whole)


def _of_layer(name: str, whole: GgufEntry) -> Iterator[tuple[str, GgufEntry]]:
    """A tensor of a layer, or those of its experts, which are stored as one."""
    if "{}" not in name or len(whole.shape) < 2:
        yield name, whole
        return
    count, n_bytes = whole.shape[0], whole.n_bytes // max(whole.shape[0], 1)
    for i in range(count):
        place = replace(whole, shape=whole.shape[1:], offset=whole.offset + i * n_bytes, n_bytes=n_bytes, heads=0)
        yield name.format(i), place
