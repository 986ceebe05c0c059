"""Large tensors of a processor on large pages of memory, which spare it most searches for where a page lies.

A step reads all weights and much of the KV store once: with pages of 4 KB that is hundreds of thousands of pages, more
than any processor remembers. Where Linux gives 2 MB pages only to who asks (`madvise`, its usual setting), this asks.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence

import torch
from torch import Tensor

HUGE = 1 << 21  # bytes of a large page on x86-64, and on ARM with small pages of 4 KB


def empty(shape: Sequence[int], dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
    """Like `torch.empty`: what is in it is not defined. On a CPU, from 2 MB on, it begins on a large page if the system
    has some; where it has none, or does not know of them, the tensor is an ordinary one."""
    size = math.prod(shape) * dtype.itemsize
    if size < HUGE or torch.device(device).type != "cpu" or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(tuple(shape), dtype=dtype, device=device)
    block = mmap.mmap(-1, size + HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        block.madvise(mmap.MADV_HUGEPAGE)
    except OSError:  # a kernel that was built without
        return torch.empty(tuple(shape), dtype=dtype)
    whole = torch.frombuffer(block, dtype=torch.uint8)  # keeps the block for as long as a view of it lives
    begin = -whole.data_ptr() % HUGE
    return whole[begin : begin + size].view(dtype).view(tuple(shape))
