"""KV of tokens taken out of a store and put back, with every byte: what a disk keeps of it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from umbel.kv.store import KVStore

Block = Mapping[str, Tensor]
"""Tensors by name, `[heads, tokens, ...]` each, on the processor."""


def slabs_of(store: KVStore) -> dict[str, Tensor]:
    """All tensors of a store that hold bytes of their own, `[heads, slots, ...]`, by names that say which they are."""
    kinds = {"keys": store.keys, "values": store.values}
    kinds |= {name: getattr(store, name) for name in ("key_scales", "value_scales") if store.scaled}
    named = ((f"{kind}.{layer}", slab) for kind, slabs in kinds.items() for layer, slab in enumerate(slabs))
    by_memory = dict[int, tuple[str, Tensor]]()
    for name, slab in named:
        by_memory.setdefault(slab.data_ptr(), (name, slab))
    return dict(by_memory.values())


def take(store: KVStore, slots: Tensor) -> dict[str, Tensor]:
    """Copies of what stands in `slots` (int64 `[tokens]`)."""
    return {name: slab[:, slots].cpu() for name, slab in slabs_of(store).items()}


def fits(store: KVStore, block: Block, tokens: int) -> bool:
    """Whether a block is one of this store's, of so many tokens."""
    slabs = slabs_of(store)
    if block.keys() != slabs.keys():
        return False
    wanted = {name: (slab.dtype, (slab.shape[0], tokens, *slab.shape[2:])) for name, slab in slabs.items()}
    return all((found.dtype, tuple(found.shape)) == wanted[name] for name, found in block.items())


@torch.inference_mode()
def put(store: KVStore, slots: Tensor, block: Block, first: int) -> None:
    """Write the tokens of a block from its `first` on into `slots`, as many as these are."""
    for name, slab in slabs_of(store).items():
        slab[:, slots] = block[name][:, first : first + len(slots)].to(slab.device)
