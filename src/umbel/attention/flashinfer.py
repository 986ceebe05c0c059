"""Attention over the forest by FlashInfer's kernels for ragged batches on pages (2501.01005), where it is installed.

A pass for each row's own path and one for each level of shared nodes (`passes.py`), whose results are merged by their
log-sum-exp. Keys and values are read where they are: `[n_kv_heads, slots, head_dim]` is handed over as a view `[pages,
tokens, n_kv_heads, head_dim]` with strides of its own, which these kernels take as long as the last one is 1.
"""

# Written against the Python and CUDA sources of flashinfer-python 0.7.2.post1; those of 0.6.11.post2 say the same, and
# older ones were not read. What is relied on:
# - plan() reads indptr and last_page_len on the host (tensors of a device would be copied back, which waits for it),
#   takes int32, and has page sizes of 1; run() takes keys and values as a tuple of 4-D tensors.
# - causal: query i of n sees key j of m where j + n <= m + i, so both end together; window_left counts the keys before
#   the query's own, "inclusive".
# - lse is base 2 by default, [rows, heads] float32, as merge_state_in_place wants it.

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from umbel.attention.passes import Pass, list_passes
from umbel.attention.switch import shipped_switch
from umbel.attention.work import Cut
from umbel.ir.spec import ModelSpec
from umbel.ir.step import Step
from umbel.kernels.place import Place
from umbel.kernels.sinks import check_sinks
from umbel.kernels.transfer import upload
from umbel.kernels.view import View, check_whole
from umbel.kv.slots import write_slots
from umbel.kv.store import KVStore

WORKSPACE_BYTES = 384 << 20  # for the results of keys cut into pieces; plan() says so where it is not enough


class FlashInferAttention:
    """The FlashInfer backend; keys and values of the queries' type, partial results too."""

    name = "flashinfer"

    def __init__(self, spec: ModelSpec, store: KVStore, device: torch.device):
        self.shape, self.store, self.device = spec.kv_shapes[0], store, device  # that of all layers
        self.library = import_module("flashinfer")
        self.cut = Cut(1, 1, self.shape.group_size, self.shape.window, shipped_switch().share_factor)
        self._workspace = torch.empty(WORKSPACE_BYTES, dtype=torch.uint8, device=device)
        self._wrappers = [self._wrapper()]
        self._copied: torch.cuda.Event | None = None

    def prepare(self, step: Step) -> int:
        """List the passes of the step and have a wrapper of each plan it."""
        passes = list_passes(step, self.cut)
        lists = [one.pages.astype(np.int32) for one in passes]
        rows = [one.rows for one in passes[1:] if not isinstance(one.rows, slice)]
        on_device = iter(upload(self.device, write_slots(step, self.store.scratch), *lists, *rows))
        self.writes = next(on_device)
        pages = [next(on_device) for _ in lists]
        self._rows = [one.rows if isinstance(one.rows, slice) else next(on_device) for one in passes]
        self._sizes = [one.page_size for one in passes]
        self._plan(passes, pages)
        return sum(one.n_keys for one in passes)

    def place(self, layer: int) -> Place:
        """The rows' slots, on the device."""
        return self.store.place(layer, self.writes)

    def attend(self, layer: int, q: Tensor, select: View | None = None, sinks: Tensor | None = None) -> Tensor:
        """One call a pass, and one to merge each but the first; reads whole paths only."""
        check_whole(self.name, select)
        check_sinks(self.shape, sinks)
        kept = [self._paged(layer, size) for size in self._sizes]
        wrapper, *others = self._wrappers[: len(kept)]
        if not others:
            out: Tensor = wrapper.run(q, kept[0])
            return out
        out, sums = wrapper.run(q, kept[0], return_lse=True)
        for wrapper, rows, pages in zip(others, self._rows[1:], kept[1:], strict=True):
            part, part_sums = wrapper.run(q[rows], pages, return_lse=True)
            whole, whole_sums = out[rows], sums[rows]  # views where rows lie side by side, else copies
            self.library.merge_state_in_place(whole, whole_sums, part, part_sums)
            if not isinstance(rows, slice):
                out[rows], sums[rows] = whole, whole_sums
        return out

    def _plan(self, passes: list[Pass], pages: list[Tensor]) -> None:
        """Tell a wrapper of each pass; `pages` are on the device."""
        # A wrapper copies its plan from memory of its own that the device reads later, which the next one overwrites.
        if self._copied is not None:
            self._copied.synchronize()
        self._wrappers += [self._wrapper() for _ in passes[len(self._wrappers) :]]
        shape, dtype = self.shape, self.store.keys[0].dtype
        for wrapper, one, listed in zip(self._wrappers, passes, pages, strict=False):
            wrapper.plan(
                *(_narrow(array) for array in (one.q_begin, one.kv_begin)),
                listed,
                _narrow(one.last),
                shape.n_heads,
                shape.n_kv_heads,
                shape.key_dim,
                one.page_size,
                causal=one.causal,
                sm_scale=shape.scale,
                window_left=-1 if shape.window is None else shape.window - 1,
                q_data_type=dtype,
                kv_data_type=dtype,
            )
        if self.device.type == "cuda":
            self._copied = torch.cuda.Event()
            self._copied.record(torch.cuda.current_stream(self.device))

    def _wrapper(self) -> Any:
        """One of FlashInfer's, which need not be here for types to be checked."""
        return self.library.BatchPrefillWithPagedKVCacheWrapper(self._workspace, "NHD")

    def _paged(self, layer: int, size: int) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer in pages of `size` tokens: two of `[pages, size, n_kv_heads, head_dim]`."""
        heads, dim = self.shape.n_kv_heads, self.shape.key_dim
        keys, values = (
            stored[layer].view(heads, -1, size, dim).permute(1, 2, 0, 3)
            for stored in (self.store.keys, self.store.values)
        )
        return keys, values


def _narrow(array: np.ndarray) -> Tensor:
    """Numbers as plan() takes them: int32, on the processor."""
    return torch.from_numpy(array.astype(np.int32))
