"""How well summaries of keys fit queries, by the compiled kernels: see `summaries.inc`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from umbel.kernels.native.calls import Native

Ints = NDArray[np.int64]
KINDS = (torch.float32, torch.bfloat16)


def score_summaries(native: Native, queries: Tensor, summaries: Tensor, at: Sequence[Ints]) -> Tensor:
    """The largest product of the queries of each tile and KV head (`[tiles, n_kv_heads, group, width]`) with the parts
    of each of its `summaries` (float32 or bfloat16 `[rows, n_kv_heads, parts, width]`), of which a tile has the rows
    `at` (int64 `[cells]`): float32 `[tiles, n_kv_heads, most cells]`, -inf where a tile has no more."""
    tiles, heads, group, width = queries.shape
    parts = summaries.shape[2]
    if summaries.shape[1:] != (heads, parts, width) or len(at) != tiles:
        shapes = f"queries {tuple(queries.shape)}, summaries {tuple(summaries.shape)}"
        raise ValueError(f"{shapes} and rows for {len(at)} tiles: they do not fit")
    if summaries.dtype not in KINDS or not summaries.is_contiguous():
        raise TypeError(f"summaries of {summaries.dtype} with strides {summaries.stride()}")
    rows, begin = np.concatenate(at), np.cumsum([0, *map(len, at)])
    if len(rows) and not 0 <= rows.min() <= rows.max() < len(summaries):
        raise IndexError(f"rows {rows.min()} to {rows.max()} of {len(summaries)} summaries")
    queries = queries.float().contiguous()
    out = torch.full((tiles, heads, max(map(len, at))), -torch.inf)
    sizes = heads, group, parts, width, out.shape[2], summaries.dtype == torch.bfloat16, torch.get_num_threads()
    native._kernels.score_summaries(queries.data_ptr(), summaries.data_ptr(), rows, begin, out.data_ptr(), *sizes)
    return out
