"""What FlashInfer's calls mean, in plain torch on the processor: paged prefill, its log-sum-exp in base 2, merging.

Only as much as the backend uses, with what the real calls demand of their arguments: int32 lists, lengths on the host,
keys and values of equal strides whose last is 1, whole tensors to merge (flashinfer-python 0.6.11.post2, 0.7.2.post1).
"""

from __future__ import annotations

import math
from types import ModuleType

import torch
from torch import Tensor

Pages = tuple[Tensor, Tensor]


class BatchPrefillWithPagedKVCacheWrapper:
    """Attention of ragged queries on pages."""

    planned = 0  # plans of all wrappers

    def __init__(self, float_workspace_buffer: Tensor, kv_layout: str = "NHD") -> None:
        assert float_workspace_buffer.dtype == torch.uint8 and kv_layout == "NHD"

    def plan(
        self,
        qo_indptr: Tensor,
        paged_kv_indptr: Tensor,
        paged_kv_indices: Tensor,
        paged_kv_last_page_len: Tensor,
        num_qo_heads: int,
        num_kv_heads: int,
        head_dim_qk: int,
        page_size: int,
        *,
        causal: bool = False,
        sm_scale: float | None = None,
        window_left: int = -1,
        q_data_type: torch.dtype = torch.float16,
        kv_data_type: torch.dtype | None = None,
    ) -> None:
        """Take a batch: where requests begin in queries and pages, pages, tokens on the last page of each."""
        lists = (qo_indptr, paged_kv_indptr, paged_kv_indices, paged_kv_last_page_len)
        assert all(array.dtype == torch.int32 and array.is_cpu for array in lists)
        self.q_begin, self.kv_begin, self.pages, self.last = (array.tolist() for array in lists)
        assert len(self.q_begin) == len(self.kv_begin) == len(self.last) + 1 and self.q_begin[0] == 0
        assert len(self.pages) == self.kv_begin[-1] and all(1 <= n <= page_size for n in self.last)
        self.heads, self.page_size = (num_qo_heads, num_kv_heads, head_dim_qk), page_size
        self.causal, self.window_left = causal, window_left
        self.scale = head_dim_qk**-0.5 if sm_scale is None else sm_scale
        self.types = q_data_type, kv_data_type or q_data_type
        type(self).planned += 1

    def run(self, q: Tensor, paged_kv_cache: Pages, *, return_lse: bool = False) -> Tensor | Pages:
        """Attention of `q` (`[rows, heads, dim]`), and the log-sum-exp (base 2) of its scores."""
        keys, values = paged_kv_cache
        n_q, n_kv, dim = self.heads
        assert q.shape == (self.q_begin[-1], n_q, dim) and (q.dtype, keys.dtype) == self.types
        assert keys.shape == values.shape == (len(keys), self.page_size, n_kv, dim)
        assert keys.stride() == values.stride() and keys.stride(-1) == 1
        out, sums = torch.empty(q.shape, dtype=q.dtype), torch.empty(q.shape[:2])
        for i in range(len(self.last)):
            queries = slice(self.q_begin[i], self.q_begin[i + 1])
            out[queries], sums[queries] = self._request(i, q[queries], keys, values)
        return (out, sums) if return_lse else out

    def _request(self, i: int, q: Tensor, keys: Tensor, values: Tensor) -> Pages:
        """Attention of one request of the batch, in float64."""
        pages = torch.tensor(self.pages[self.kv_begin[i] : self.kv_begin[i + 1]], dtype=torch.int64)
        n_keys = (len(pages) - 1) * self.page_size + self.last[i]
        k, v = (t[pages].flatten(0, 1)[:n_keys].double() for t in (keys, values))  # [keys, n_kv_heads, dim]
        k, v = (t.repeat_interleave(self.heads[0] // self.heads[1], 1) for t in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q.double(), k) * self.scale
        at, key = torch.arange(len(q))[:, None], torch.arange(n_keys)[None]
        assert not self.causal or n_keys >= len(q)
        if self.causal:
            scores.masked_fill_(key + len(q) > n_keys + at, -math.inf)
        if self.window_left >= 0:
            scores.masked_fill_(key + len(q) + self.window_left < n_keys + at, -math.inf)
        sums = torch.logsumexp(scores, -1)
        mixed = torch.einsum("hqk,khd->qhd", (scores - sums[..., None]).exp(), v)
        return mixed.to(q.dtype), (sums.transpose(0, 1) / math.log(2)).float()


def merge_state_in_place(v: Tensor, s: Tensor, v_other: Tensor, s_other: Tensor, mask: Tensor | None = None) -> None:
    """Merge another state into (`v`, `s`): outputs `[rows, heads, dim]` and log-sum-exps (base 2) `[rows, heads]`."""
    assert v.shape == v_other.shape and s.shape == s_other.shape == v.shape[:2] and mask is None
    assert all(t.is_contiguous() for t in (v, s, v_other, s_other)) and s.dtype == s_other.dtype == torch.float32
    top = torch.maximum(s, s_other)
    mine, others = torch.exp2(s - top), torch.exp2(s_other - top)
    total = mine + others
    v.copy_((v * (mine / total)[..., None] + v_other * (others / total)[..., None]).to(v.dtype))
    s.copy_(torch.log2(total) + top)


def module() -> ModuleType:
    """As `import flashinfer` gives it."""
    made = ModuleType("flashinfer")
    made.BatchPrefillWithPagedKVCacheWrapper = BatchPrefillWithPagedKVCacheWrapper
    made.merge_state_in_place = merge_state_in_place
    return made
