"""The adapters of a loaded model: put beside its products once, read from their files when rows first need them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from umbel.errors import ModelError
from umbel.ir.adapter import Adapter, kept_bytes
from umbel.ir.spec import ModelSpec
from umbel.ir.step import Ints, Step
from umbel.kernels.transfer import upload
from umbel.linear.base import Linear, LinearMethod, Product
from umbel.linear.lora import AdaptedGate, AdaptedLinear, AdaptedRows, AdaptedRun, LowRankPart, LowRankProduct
from umbel.models.adapters.given import GivenRows, GivenRun, SoftPrompt, load_soft_prompt, put_given
from umbel.models.adapters.modules import ModulePair, digest_of, module_pairs, products_of
from umbel.models.adapters.seeded import SCHEME, Member, seeded_matrices
from umbel.models.block import ActivatedBlock, Block, DenseBlock
from umbel.models.decoder import Decoder
from umbel.models.layers import LayerWeights
from umbel.models.parts import Part, as_ours
from umbel.models.rotary import halves_order, in_order
from umbel.models.safetensors_header import TensorEntry
from umbel.models.sources.finite import check_finite
from umbel.models.tensor_file import DTYPES, TensorFile

Loaded = Mapping[str, LowRankProduct] | SoftPrompt
CPU = torch.device("cpu")


class AdapterBank:
    """Which adapters are in memory, and which rows of a step have one.

    The adapters that were read last stay, up to `kept_bytes`, and those of the step that is computed. `rows` are all
    rows of that step, `wanted` those that pass what follows the attention of the last layer, `given` those that stand
    for soft prompts. `loads` counts how often an adapter was read. `plain` are the decoder's layers without any;
    numbers are of `width` bytes.
    """

    def __init__(
        self,
        adapters: Sequence[Adapter],
        load: Callable[[Adapter], Loaded],
        width: int,
        plain: tuple[LayerWeights, ...] = (),
        device: torch.device = CPU,
    ):
        self.adapters = tuple(adapters)
        self.rows, self.wanted, self.given = AdaptedRows(), AdaptedRows(), GivenRows()
        self.loads, self.plain, self.device = 0, plain, device
        self._load, self._width = load, width
        self._kept: OrderedDict[int, Loaded] = OrderedDict()

    def prepare(self, step: Step, wanted: Ints) -> None:
        """Take the rows of a step, and which of them (`[k]`) are drawn from or scored. Raises ModelError for an adapter
        whose files have changed."""
        if step.scope is None:
            self.rows.runs = self.wanted.runs = self.given.runs = ()
            return
        scope = np.repeat(step.scope, step.row_end - step.row_begin)  # [rows], the number of the adapter of each
        used = {number: self._at_hand(number) for number in np.unique(scope).tolist() if number}
        self._give_up(used.keys())
        low_rank = {number: one for number, one in used.items() if not isinstance(one, SoftPrompt)}
        soft = {number: one for number, one in used.items() if isinstance(one, SoftPrompt)}
        self.rows.runs = tuple(_runs(scope, low_rank))
        self.wanted.runs = tuple(_runs(scope[wanted], low_rank))
        self.given.runs = tuple(self._given(step.positions, scope, soft)) if soft else ()

    def _given(self, positions: Ints, scope: Ints, soft: Mapping[int, SoftPrompt]) -> Iterator[GivenRun]:
        """The rows that stand for soft prompts."""
        for number, prompt in soft.items():
            rows = np.flatnonzero((scope == number) & (positions < self.adapters[number - 1].places))
            if len(rows):
                yield GivenRun(*upload(self.device, rows, positions[rows]), prompt)

    def _at_hand(self, number: int) -> Loaded:
        """An adapter, from its files if it is not there."""
        if number not in self._kept:
            self._kept[number] = self._load(self.adapters[number - 1])
            self.loads += 1
        self._kept.move_to_end(number)
        return self._kept[number]

    def _give_up(self, used: Container[int]) -> None:
        """Drop what was not read for longest, as far as there is no room for it."""
        room = kept_bytes(self.adapters, self._width)
        sizes = {number: self.adapters[number - 1].weights * self._width for number in self._kept}
        for number in list(self._kept):
            if sum(sizes.values()) <= room:
                return
            if number not in used:
                del self._kept[number], sizes[number]


def _runs(scope: Ints, used: Mapping[int, Mapping[str, LowRankProduct]]) -> Iterator[AdaptedRun]:
    """Rows that stand side by side with the same adapter."""
    edges = np.flatnonzero(np.diff(scope)) + 1
    for begin, end in zip([0, *edges.tolist()], [*edges.tolist(), len(scope)], strict=True):
        if begin < end and (products := used.get(scope.item(begin))) is not None:
            yield AdaptedRun(begin, end, products)


@dataclass(frozen=True, slots=True)
class AdapterLoader:
    """Reads adapters for a model of shape `spec`; their products are made by `method`, in `dtype` on `device`."""

    spec: ModelSpec
    method: LinearMethod
    dtype: torch.dtype
    device: torch.device

    def load(self, adapter: Adapter) -> Loaded:
        """The products of an adapter, or its soft prompt. Raises ModelError where its files are damaged."""
        directory, outputs = Path(adapter.directory), {p.name: p.outputs for p in adapter.products}
        if adapter.directory.startswith(SCHEME):
            return self._seeded(Member.parse(adapter.directory), outputs)
        try:
            if digest_of(directory) != adapter.digest:
                raise ModelError("its files have changed since they were checked: start again")
            if adapter.places:
                return load_soft_prompt(adapter, self.spec, self.dtype, self.device)
            pairs = module_pairs(directory, self.spec)
            files = {path: TensorFile(path) for path in {p.down.path for each in pairs.values() for p in each}}
            return {name: self._product(name, _matrices(each, files), outputs[name]) for name, each in pairs.items()}
        except (ModelError, KeyError, OSError) as error:
            raise ModelError(f"adapter {adapter.name!r} ({directory}): {error}") from None

    def _seeded(self, member: Member, outputs: Mapping[str, int]) -> Loaded:
        """The products of a member of an evolution strategy."""
        found = dict[str, LowRankProduct]()
        for name, parts in products_of(self.spec):
            drawn = seeded_matrices(member, parts)
            pairs = [(part, at, torch.from_numpy(inner), torch.from_numpy(outer)) for part, at, inner, outer in drawn]
            found[name] = self._product(name, pairs, outputs[name])
        return found

    def _product(self, name: str, pairs: Sequence[tuple[Part, int, Tensor, Tensor]], outputs: int) -> LowRankProduct:
        """The pairs of one product (part, where its outputs begin, inner and outer matrix) as one: inner matrices
        stacked, each of an even number of rows, so that kernels find where the next begins."""
        down, parts, at = list[Tensor](), list[LowRankPart](), 0
        for part, begin, inner, outer in pairs:
            whole = outer.new_zeros(outputs, outer.shape[1])
            end = begin + part.filled[0]
            whole[begin:end] = as_ours(outer, part) if part.lies == "grouped" else outer
            up = self._convert(self._in_order(name, whole)[begin:end])
            parts.append(LowRankPart(slice(at, at + len(inner)), slice(begin, end), up))
            down.append(F.pad(inner, (0, 0, 0, len(inner) % 2)))
            at += len(down[-1])
        return LowRankProduct(self._convert(torch.cat(down)), tuple(parts))

    def _convert(self, matrix: Tensor) -> Linear:
        return self.method.convert(matrix.to(self.device, self.dtype).contiguous())

    def _in_order(self, name: str, up: Tensor) -> Tensor:
        """Outputs of queries and keys as the decoder has them, where it turns other pairs than the checkpoint."""
        _, layer, product = name.split(".")
        own = self.spec.layer(int(layer))
        if product != "qkv" or own.recurrence is not None:
            return up
        order = halves_order(own.rope, self.spec.head_dim)
        found = in_order(up, order, self.spec.n_heads + self.spec.n_kv_heads)
        assert isinstance(found, Tensor)
        return found


def _matrices(pairs: Sequence[ModulePair], files: Mapping[Path, TensorFile]) -> list[tuple[Part, int, Tensor, Tensor]]:
    """What `_product` takes, from files."""
    return [
        (
            each.part,
            each.begin,
            _read(files[each.down.path], each.down),
            _read(files[each.up.path], each.up) * each.scale,
        )
        for each in pairs
    ]


def _read(file: TensorFile, entry: TensorEntry) -> Tensor:
    """A matrix in float32."""
    whole = torch.empty(entry.shape, dtype=DTYPES[entry.dtype])
    file.read_into(entry, whole)
    check_finite(entry.name, whole)
    return whole.to(torch.float32)


def put_adapters(decoder: Decoder, loader: AdapterLoader, before: AdapterBank | None = None) -> AdapterBank:
    """Put the adapters of a model beside those products of its decoder that they add to, in the place of those of the
    bank `before`; the others stay as they are."""
    adapters, plain = loader.spec.adapters, decoder.layers if before is None else before.plain
    bank = AdapterBank(adapters, loader.load, loader.dtype.itemsize, plain, loader.device)
    bank.loads = 0 if before is None else before.loads
    named = {product.name for adapter in adapters for product in adapter.products}
    decoder.layers = tuple(_layer(w, layer, decoder.spec, named, bank) for layer, w in enumerate(plain))
    decoder.adapters = bank
    if any(adapter.places for adapter in adapters):
        put_given(decoder, bank.given)
    return bank


def _layer(w: LayerWeights, layer: int, spec: ModelSpec, named: set[str], bank: AdapterBank) -> LayerWeights:
    """A layer with adapters; only wanted rows pass what follows the attention of the last one."""
    ending = bank.wanted if layer == spec.n_layers - 1 else bank.rows

    def beside(product: Linear, name: str, rows: AdaptedRows) -> Linear:
        full = f"layers.{layer}.{name}"
        return AdaptedLinear(product, full, rows) if full in named else product

    block: Block = w.block
    if isinstance(block, DenseBlock) and f"layers.{layer}.gate_up" in named:
        block = replace(block, gate_up=AdaptedGate(cast(Product, block.gate_up), f"layers.{layer}.gate_up", ending))
    if isinstance(block, ActivatedBlock):
        block = replace(block, up=beside(block.up, block.name, ending))
    if isinstance(block, DenseBlock | ActivatedBlock):
        block = replace(block, down=beside(block.down, "down", ending))
    return replace(w, qkv=beside(w.qkv, "qkv", bank.rows), o=beside(w.o, "o", ending), block=block)
