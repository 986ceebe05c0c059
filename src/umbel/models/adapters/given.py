"""Soft prompts on the device: what is put in the place of what was computed for the rows that stand for one.

The rows of a soft prompt run through the model like others, and get their embeddings, or in each layer their keys and
values, replaced before any other row reads them. What rows of one soft prompt compute depends on nothing else, so that
all that follow have the bits that they have alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from umbel.attention.base import AttentionBackend
from umbel.errors import ModelError
from umbel.ir.adapter import Adapter
from umbel.ir.spec import ModelSpec
from umbel.ir.step import Step
from umbel.kernels.place import Place
from umbel.kernels.view import View
from umbel.linear.base import Table
from umbel.models.adapters.soft_prompts import soft_kind, tensor_of
from umbel.models.batch import ForwardBatch
from umbel.models.decoder import Decoder
from umbel.models.mixing import Attending
from umbel.models.rotary import halves_order
from umbel.models.sources.finite import check_finite
from umbel.models.tensor_file import DTYPES, TensorFile


@dataclass(frozen=True, slots=True)
class SoftPrompt:
    """What one has for each of its positions: `embeddings` (`[places, hidden]`), or `keys` and `values` by layer
    (`[places, n_kv_heads, dim]` each)."""

    embeddings: Tensor | None = None
    keys: tuple[Tensor, ...] = ()
    values: tuple[Tensor, ...] = ()


@dataclass(frozen=True, slots=True)
class GivenRun:
    """Rows of a step that stand for a soft prompt (int64 `[rows]`), and for which of its positions."""

    rows: Tensor
    at: Tensor
    prompt: SoftPrompt


@dataclass(slots=True)
class GivenRows:
    """Runs of rows that stand for soft prompts in the step that is computed; set once a step."""

    runs: tuple[GivenRun, ...] = ()


@dataclass(frozen=True, slots=True)
class GivenTable:
    """An embedding in which rows of soft prompts have their own."""

    base: Table
    given: GivenRows

    def rows(self, ids: Tensor) -> Tensor:
        """Implement `Table.rows`, for all rows of the step."""
        found = self.base.rows(ids)
        runs = [run for run in self.given.runs if run.prompt.embeddings is not None]
        if runs:
            found = found.clone()
        for run in runs:
            assert run.prompt.embeddings is not None
            found[run.rows] = run.prompt.embeddings[run.at].to(found.dtype)
        return found

    def logits(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Implement `Table.logits`."""
        return self.base.logits(x, out)


@dataclass(frozen=True, slots=True)
class GivenMixing:
    """Attention of a layer in which rows of soft prompts have their own keys and values."""

    base: Attending
    given: GivenRows

    def apply(self, product: Tensor, batch: ForwardBatch, attention: AttentionBackend) -> Tensor:
        """Implement `Mixing.apply`."""
        runs = [run for run in self.given.runs if run.prompt.keys]
        return self.base.apply(product, batch, GivenAttention(attention, runs) if runs else attention)


@dataclass(frozen=True, slots=True)
class GivenAttention:
    """A backend that puts keys and values of soft prompts where those of their rows were, before any row reads them."""

    base: AttentionBackend
    runs: Sequence[GivenRun]

    @property
    def name(self) -> str:
        """Implement `AttentionBackend.name`."""
        return self.base.name

    def prepare(self, step: Step) -> int:
        """Implement `AttentionBackend.prepare`."""
        return self.base.prepare(step)

    def place(self, layer: int) -> Place:
        """Implement `AttentionBackend.place`."""
        return self.base.place(layer)

    def attend(self, layer: int, q: Tensor, select: View | None = None, sinks: Tensor | None = None) -> Tensor:
        """Implement `AttentionBackend.attend`."""
        place = self.base.place(layer)
        for run in self.runs:
            own = Place(place.keys, place.values, place.slots[run.rows], place.scales)
            own.write(run.prompt.keys[layer][run.at], run.prompt.values[layer][run.at])
        return self.base.attend(layer, q, select, sinks)


def put_given(decoder: Decoder, given: GivenRows) -> None:
    """Have a decoder take what is given for its rows."""
    table = decoder.embedding
    decoder.embedding = GivenTable(table.base if isinstance(table, GivenTable) else table, given)
    decoder.layers = tuple(
        replace(w, mixing=GivenMixing(w.mixing, given)) if isinstance(w.mixing, Attending) else w
        for w in decoder.layers
    )


def load_soft_prompt(adapter: Adapter, spec: ModelSpec, dtype: torch.dtype, device: torch.device) -> SoftPrompt:
    """A soft prompt from its file, as the decoder has queries and keys. Raises ModelError where it is damaged."""
    directory = Path(adapter.directory)
    entry = tensor_of(directory)
    whole = torch.empty(entry.shape, dtype=DTYPES[entry.dtype])
    TensorFile(entry.path).read_into(entry, whole)
    check_finite(entry.name, whole)
    kind, whole = soft_kind(directory), whole.to(device, dtype)
    if kind is None:
        raise ModelError("it is no soft prompt any more: start again")
    if kind != "PREFIX_TUNING":
        return SoftPrompt(whole)
    shape, keys, values = spec.kv_shapes[0], list[Tensor](), list[Tensor]()
    by_layer = whole.view(adapter.places, 2 * spec.n_layers, shape.n_kv_heads, shape.key_dim)
    for layer in range(spec.n_layers):
        order = halves_order(spec.layer(layer).rope, spec.head_dim)
        k = by_layer[:, 2 * layer]
        keys.append((k if order is None else k[..., order.to(device)]).contiguous())
        values.append(by_layer[:, 2 * layer + 1].contiguous())
    return SoftPrompt(None, tuple(keys), tuple(values))
