"""Attention as others have it, on the same keys and values: torch's flash kernel, FlashAttention, FlashInfer.

FlashAttention is the package flash_attn (on keys and values side by side per row, its fastest form) and the one that
vLLM brings (the third version, on our pages); FlashInfer's cascade has one level per level of the tree. Torch's own
flash kernel stands in for them where neither is installed: rows' keys and values side by side, the query heads of a
KV head folded into rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from types import MappingProxyType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.gpu.trees import PAGE, Node
from umbel.ir.spec import ModelSpec
from umbel.ir.step import Step
from umbel.kv.slots import path_slots, row_nodes
from umbel.kv.store import KVStore

MOST_BYTES = 45e9  # of keys and values copied for a peer that cannot read pages
Make = Callable[[ModelSpec, Step, KVStore, Tensor, Sequence[Node]], Callable[[], Tensor]]


class NotHere(Exception):
    """A peer that is not on this machine, or a case that is too large for it; the message is a cell of the table."""


@dataclass(frozen=True, slots=True)
class Peer:
    """`make` gives the call that is timed: attention of all rows, `[rows, heads, dim]`; `kinds` of cases it can do."""

    make: Make
    kinds: tuple[str, ...]


def _need(package: str) -> None:
    if find_spec(package) is None:
        raise NotHere("not installed")


def _copies(spec: ModelSpec, step: Step, store: KVStore) -> tuple[Tensor, Tensor]:
    """Keys and values of each row, side by side: `[rows, kv heads, context, dim]`; rows must be of one length."""
    last = int(step.positions.max()) + 1
    n_bytes = 2 * step.n_rows * last * spec.n_kv_heads * spec.head_dim * store.keys[0].element_size()
    if n_bytes > MOST_BYTES:
        raise NotHere("too large")
    slots = path_slots(step, row_nodes(step), np.tile(np.arange(last), (step.n_rows, 1)))
    at = torch.from_numpy(slots.ravel()).to(store.keys[0].device)
    shape = (spec.n_kv_heads, step.n_rows, last, spec.head_dim)
    keys, values = (
        t[0].index_select(1, at).view(shape).transpose(0, 1).contiguous() for t in (store.keys, store.values)
    )
    return keys, values


def torch_flash(spec: ModelSpec, step: Step, store: KVStore, q: Tensor, nodes: Sequence[Node]) -> Callable[[], Tensor]:
    """Torch's scaled_dot_product_attention, the flash kernel on a GPU."""
    keys, values = _copies(spec, step, store)
    folded = q.view(step.n_rows, spec.n_kv_heads, spec.kv_shape(0).group_size, spec.head_dim)
    backend = SDPBackend.FLASH_ATTENTION if q.is_cuda else SDPBackend.MATH

    def act() -> Tensor:
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(folded, keys, values).reshape(q.shape)

    return act


def flash_attention(
    spec: ModelSpec, step: Step, store: KVStore, q: Tensor, nodes: Sequence[Node]
) -> Callable[[], Tensor]:
    """The package flash_attn, keys and values `[rows, context, kv heads, dim]`."""
    _need("flash_attn")
    from flash_attn import flash_attn_with_kvcache

    keys, values = (t.transpose(1, 2).contiguous() for t in _copies(spec, step, store))
    mine = q[:, None]
    return lambda: flash_attn_with_kvcache(mine, keys, values)[:, 0]


def vllm_flash(spec: ModelSpec, step: Step, store: KVStore, q: Tensor, nodes: Sequence[Node]) -> Callable[[], Tensor]:
    """The FlashAttention that vLLM brings, on pages."""
    _need("vllm")
    from vllm.vllm_flash_attn import flash_attn_varlen_func

    device, last = q.device, int(step.positions.max()) + 1
    keys, values = (_paged(t[0], spec) for t in (store.keys, store.values))
    whole = np.minimum(np.arange(0, last, PAGE), last - 1)
    table = path_slots(step, row_nodes(step), np.tile(whole, (step.n_rows, 1))) // PAGE
    blocks = torch.from_numpy(table).to(device, torch.int32)
    begins = torch.arange(step.n_rows + 1, device=device, dtype=torch.int32)
    used = torch.from_numpy(step.positions + 1).to(device, torch.int32)
    version = 3 if torch.cuda.get_device_capability(device)[0] == 9 else 2
    return lambda: flash_attn_varlen_func(
        q, keys, values, 1, begins, last, seqused_k=used, causal=True, block_table=blocks, fa_version=version
    )


def cascade(spec: ModelSpec, step: Step, store: KVStore, q: Tensor, nodes: Sequence[Node]) -> Callable[[], Tensor]:
    """FlashInfer's cascade with one level for each depth of the tree."""
    _need("flashinfer")
    from flashinfer import MultiLevelCascadeAttentionWrapper

    device = q.device
    levels = _levels(step)
    room = torch.empty(256 << 20, dtype=torch.uint8, device=device)
    wrapper = MultiLevelCascadeAttentionWrapper(len(levels), room, "NHD")
    columns = [[torch.from_numpy(column).to(device, torch.int32) for column in level] for level in levels]
    wrapper.plan(
        *(list(column) for column in zip(*columns, strict=True)),
        spec.n_heads, spec.n_kv_heads, spec.head_dim, PAGE, q_data_type=q.dtype,
    )  # fmt: skip
    both = torch.stack([_paged(t[0], spec) for t in (store.keys, store.values)], 1)
    return lambda: wrapper.run(q, both)


def _levels(step: Step) -> list[tuple[np.ndarray, ...]]:
    """For each depth, roots first: where each node's rows and its pages begin, the pages, tokens on the last of
    each."""
    depth = np.zeros(len(step.parent), np.int64)
    for i, above in enumerate(step.parent):
        depth[i] = depth[above] + 1 if above >= 0 else 0
    found = []
    for level in range(depth.max() + 1):
        at = np.flatnonzero(depth == level)
        tokens = (step.end - step.start)[at]
        n_pages = -(-tokens // PAGE)
        pages = np.concatenate([step.pages[b : b + n] for b, n in zip(step.page_begin[at], n_pages, strict=True)])
        below = step.row_begin[at], step.below_end[at]
        found.append(
            (np.append(below[0], below[1][-1]), np.append(0, np.cumsum(n_pages)), pages, (tokens - 1) % PAGE + 1)
        )
    return found


def _paged(tensor: Tensor, spec: ModelSpec) -> Tensor:
    """Our `[kv heads, slots, dim]` as a copy `[pages, page, kv heads, dim]`."""
    return tensor.view(spec.n_kv_heads, -1, PAGE, spec.head_dim).permute(1, 2, 0, 3).contiguous()


PEERS: Mapping[str, Peer] = MappingProxyType(
    {
        "torch flash SDPA": Peer(torch_flash, ("plain paged decode", "shared decode")),
        "FlashAttention": Peer(flash_attention, ("plain paged decode",)),
        "vLLM's FlashAttention": Peer(
            vllm_flash, ("plain paged decode", "shared decode", "two levels", "three levels")
        ),
        "FlashInfer cascade": Peer(cascade, ("two levels", "three levels", "shared decode")),
    }
)
