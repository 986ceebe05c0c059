"""Brings a model's tensors into memory under the engine's own names, checked before use.

Names: `embed`, `norm`, `head`, maybe `positions`, `head_bias`, `classes`, and per layer `layers.<i>.` + `qkv o gate_up
down` (`up down` without a gate; `router experts_gate_up experts_down` with experts), the norms of `ir/layer.py`, and
`q_norm k_norm`, each with its `_bias` where the family has it. Query, key and value, and gate and up, are stacked once
here so that each is one matrix product. A tied `head` is `embed` itself and has no entry.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from umbel.cost.machine import choose_dtype, processor_dtypes
from umbel.errors import ModelError
from umbel.ir.architecture import layer_vectors
from umbel.ir.int4_format import LOADING
from umbel.ir.load_count import LoadCount
from umbel.ir.spec import ModelSpec
from umbel.kernels.int4 import Int4Weight, round_to_int4, stack
from umbel.models.architectures import FAMILIES
from umbel.models.config_file import shorten
from umbel.models.layout import layout
from umbel.models.packed_weights import check_zero_bias, is_packed, packed_parts, read_packed
from umbel.models.parts import Part, as_ours
from umbel.models.sources.base import StoredTensor
from umbel.models.sources.find import source_at
from umbel.models.tensor_file import DTYPES

TORCH_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_dtype(requested: str, spec: ModelSpec, device: torch.device | str) -> torch.dtype:
    """The type to compute in: as asked, or for "auto" the checkpoint's where the device multiplies in it natively."""
    native = tuple(TORCH_DTYPES) if torch.device(device).type == "cuda" else processor_dtypes()
    return TORCH_DTYPES[choose_dtype(requested, spec.dtype, native)]


class StoredWeights(Mapping[str, Tensor | Int4Weight]):
    """Every tensor of `layout(spec)` on `device`, as `dtype` or in the 4 bits it is stored in; read from the files
    when it is asked for, and counted in `count`.

    Making one raises ModelError for files that are missing, damaged or not safetensors, and for tensors that are
    missing, unexpected, of another shape than the config says or of a type that is no float (or not what 4-bit weights
    are stored in); reading a tensor does for values that are not finite or otherwise cannot be,
    and for a file that was changed since.
    """

    def __init__(
        self,
        directory: Path,
        spec: ModelSpec,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        count: LoadCount | None = None,
    ):
        self.directory, self.dtype, self.device, self.form = directory, dtype, device, spec.quantization
        self._tensors = source_at(directory).tensors(spec)
        self._stored = self._tensors.entries
        self._expected = _as_stored(layout(spec), self._stored, spec)
        self._wide = kept_wide(spec)
        _check_tensors(directory, self._expected, self._stored, spec)
        self._count = count or LoadCount()
        self._count.expect(sum(map(_size_of, self._expected.values())))

    def __getitem__(self, name: str) -> Tensor | Int4Weight:
        """One tensor, its parts stacked, in memory of its own."""
        parts = self._expected[name]
        found = self._packed(name, parts) if is_packed(self.form, name) else self._stacked(name, parts)
        self._count.add(_size_of(parts))
        return found

    def _stacked(self, name: str, parts: tuple[Part, ...]) -> Tensor:
        """One tensor that is stored as numbers."""
        at = 0
        dtype = torch.float32 if name in self._wide else self.dtype
        whole = torch.empty(_shape_of(parts), dtype=dtype, device=self.device)
        for part in parts:
            rows = whole[at : at + part.filled[0]]
            if part.lies == "rows":
                self._tensors.read_into(part.name, rows.view(part.shape))
            else:
                rows.copy_(as_ours(self._read(part.name), part))
            at += len(rows)
        return whole

    def _packed(self, name: str, parts: tuple[Part, ...]) -> Tensor | Int4Weight:
        """One tensor that is stored in 4 bits."""
        try:
            found = [read_packed(self.form, part, self._read, self._stored.__contains__) for part in parts]
            if f"{name}_bias" not in self._expected:
                for part in parts:
                    check_zero_bias(part, self._read, self._stored.__contains__)
        except ModelError as error:
            raise ModelError(f"{self.directory}: {error}") from None
        if isinstance(found[0], Tensor):
            return torch.cat(found).to(self.device, self.dtype)
        whole = stack(found).to(self.device)
        if whole.scales.abs().max().item() * 16 > torch.finfo(self.dtype).max:
            raise ModelError(f"{self.directory}: scales of {name} are too large for {self.dtype}: use another dtype")
        return whole

    def _read(self, name: str) -> Tensor:
        """A tensor as stored."""
        entry = self._stored[name]
        whole = torch.empty(entry.shape, dtype=DTYPES[entry.dtype])
        self._tensors.read_into(name, whole)
        return whole

    def __iter__(self) -> Iterator[str]:
        return iter(self._expected)

    def __len__(self) -> int:
        return len(self._expected)


def load_weights(
    directory: Path, spec: ModelSpec, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> dict[str, Tensor | Int4Weight]:
    """All `StoredWeights`, read."""
    return dict(StoredWeights(directory, spec, dtype, device))


def dummy_weights(
    spec: ModelSpec, dtype: torch.dtype, seed: int = 0, device: torch.device | str = "cpu"
) -> dict[str, Tensor | Int4Weight]:
    """Seeded random weights for a config without a checkpoint: N(0, 0.02), norms 1, biases 0; in 4 bits where the
    config says so.

    A GPU draws its own, other ones than a CPU with the same seed: a CPU needs over a minute for eight billion.
    """
    where = torch.device(device)
    drawing = where if where.type == "cuda" else torch.device("cpu")
    generator = torch.Generator(drawing).manual_seed(seed)
    weights, wide = dict[str, Tensor | Int4Weight](), kept_wide(spec)
    for name, parts in layout(spec).items():
        shape, kind = _shape_of(parts), torch.float32 if name in wide else dtype
        if len(shape) == 2 and not name.endswith("norm"):
            drawn = torch.empty(shape, device=drawing).normal_(0.0, 0.02, generator=generator)
            weights[name] = _as_packed(spec, name, drawn.to(device, kind))
        else:
            weights[name] = torch.full(shape, 1.0 if name.endswith("norm") else 0.0, dtype=kind, device=device)
    return weights


def kept_wide(spec: ModelSpec) -> frozenset[str]:
    """Our tensors that stay in float32, whatever the model's type is."""
    return frozenset(f"layers.{layer}.{name}" for layer in range(spec.n_layers) for name in layer_vectors(spec, layer))


def _shape_of(parts: tuple[Part, ...]) -> tuple[int, ...]:
    """The shape of our tensor that stacks these."""
    return sum(part.filled[0] for part in parts), *parts[0].filled[1:]


def _size_of(parts: tuple[Part, ...]) -> int:
    """How many numbers our tensor has that stacks these."""
    return prod(_shape_of(parts))


def _as_packed(spec: ModelSpec, name: str, weight: Tensor) -> Tensor | Int4Weight:
    """Random weights in 4 bits, where a checkpoint of this spec would keep them so."""
    form, inputs = spec.quantization, weight.shape[1]
    if form is None or not is_packed(form, name) or not form.keeps(name, inputs):
        return weight
    whole = inputs % form.group_of(inputs) == 0
    return round_to_int4(weight, form.group_of(inputs) if whole else LOADING.group_of(inputs))


def _as_stored(
    expected: dict[str, tuple[Part, ...]], stored: Mapping[str, object], spec: ModelSpec
) -> dict[str, tuple[Part, ...]]:
    """The layout, with `embed` taken from the head where a tied checkpoint stores only that one, and without a prefix
    that the checkpoint leaves out."""
    (embed,) = expected["embed"]
    body = FAMILIES[spec.family].stored.body
    if embed.name not in stored and embed.name.removeprefix(body) in stored:
        bare = {part: replace(part, name=part.name.removeprefix(body)) for parts in expected.values() for part in parts}
        return {name: tuple(bare[part] for part in parts) for name, parts in expected.items()}
    head = _head_of(spec)
    if "head" in expected or embed.name in stored or head not in stored:
        return expected
    return expected | {"embed": (Part(head, embed.shape),)}


def _head_of(spec: ModelSpec) -> str:
    """What a checkpoint calls the output head."""
    return f"{FAMILIES[spec.family].stored.head}.weight"


def _check_tensors(
    directory: Path, expected: Mapping[str, tuple[Part, ...]], stored: Mapping[str, StoredTensor], spec: ModelSpec
) -> None:
    """Raise ModelError unless the checkpoint holds the expected tensors, in their shapes, and no others."""
    every = _every_part(expected, spec)
    missing = [name for name, part in every.items() if part.needed and name not in stored]
    if missing:
        raise ModelError(f"{directory}: {len(missing)} tensors missing, first {missing[0]}: {_guess(stored, spec)}")
    for name, part in every.items():
        found = stored.get(name)
        if found is not None and found.shape != part.shape:
            raise ModelError(
                f"{directory}: tensor {name} is {list(found.shape)}, config.json makes it {list(part.shape)}"
            )
        if found is not None and found.dtype not in part.dtypes:
            raise ModelError(f"{directory}: tensor {name} is {found.dtype}; only {', '.join(part.dtypes)} can be read")
    harmless = _unread(spec)
    spare = {_head_of(spec)} if spec.tied_embeddings else set()
    unexpected = [name for name in stored if name not in every and name not in spare and not harmless.fullmatch(name)]
    if unexpected:
        raise ModelError(f"{directory}: {len(unexpected)} unexpected tensors, first {shorten(unexpected[0])}")


def _unread(spec: ModelSpec) -> re.Pattern[str]:
    """Names of tensors that may be there and are not read."""
    stored = FAMILIES[spec.family].stored
    more = f"|{re.escape(stored.layer.format(spec.n_layers))}.*" if stored.has_more_layers else ""
    return re.compile(rf"{stored.ignored}{more}|.*_swiftkv\.weight")  # these: models/layer_keys.py


def _guess(stored: Mapping[str, object], spec: ModelSpec) -> str:
    """Why tensors may be missing."""
    packed = next((name for name in stored if name.endswith((".qweight", ".weight_packed"))), None)
    if packed is not None and spec.quantization is None:
        return f"there is {shorten(packed)}, but config.json has no quantization_config"
    if packed is None and spec.quantization is not None:
        return "config.json has a quantization_config, but no tensor is packed"
    return f"is it a {spec.family} model?"


def _every_part(expected: Mapping[str, tuple[Part, ...]], spec: ModelSpec) -> dict[str, Part]:
    """What the checkpoint may hold, by name: 4-bit weights as the tensors that they are stored in."""
    form, found = spec.quantization, {}
    for name, parts in expected.items():
        for part in parts:
            for each in packed_parts(form, part) if form and is_packed(form, name) else (part,):
                if each.needed or each.name not in found:
                    found[each.name] = each
    return found
