"""Arrays of the processor to a device, all at once and without waiting for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

ALIGNMENT = 16  # bytes on which each array begins, which kernels can count on


def upload(device: torch.device, *arrays: np.ndarray) -> list[Tensor]:
    """Each array as a tensor on `device`: one transfer to a GPU, from memory that it reads by itself; on a processor
    no transfer at all."""
    if device.type == "cpu":
        return [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
    return fill(torch.empty(bytes_for(arrays), dtype=torch.uint8, device=device), arrays)


def bytes_for(arrays: Sequence[np.ndarray]) -> int:
    """Bytes that arrays take side by side."""
    return sum(-(-array.nbytes // ALIGNMENT) * ALIGNMENT for array in arrays)


def fill(memory: Tensor, arrays: Sequence[np.ndarray]) -> list[Tensor]:
    """Put arrays side by side into some bytes of a device; gives the views of them."""
    # Fresh memory each time, which torch does not reuse before the device has read it.
    staged = torch.empty(len(memory), dtype=torch.uint8, pin_memory=memory.is_cuda)
    for view, array in zip(_views(staged, arrays), arrays, strict=True):
        view.numpy()[...] = array
    memory.copy_(staged, non_blocking=True)
    return _views(memory, arrays)


def _views(memory: Tensor, arrays: Sequence[np.ndarray]) -> list[Tensor]:
    """The part of some bytes that is for each array."""
    views, begin = [], 0
    for array in arrays:
        kind = torch.from_numpy(np.empty(0, array.dtype)).dtype
        views.append(memory[begin : begin + array.nbytes].view(kind).view(array.shape))
        begin += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
    return views
