"""Arrays of the processor to a device, all at once and without waiting for it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

ALIGNMENT = 16  # bytes on which each array begins, which kernels can count on


def upload(device: torch.device, *arrays: np.ndarray) -> tuple[Tensor, ...]:
    """Each array as a tensor on `device`: one transfer to a GPU, from memory that it reads by itself; on a processor
    no transfer at all."""
    if device.type == "cpu":
        return tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)
    begins, size = [], 0
    for array in arrays:
        begins.append(size)
        size += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
    staged = torch.empty(size, dtype=torch.uint8, pin_memory=True)
    for array, begin in zip(arrays, begins, strict=True):
        _view(staged, array, begin).numpy()[...] = array
    whole = staged.to(device, non_blocking=True)
    return tuple(_view(whole, array, begin) for array, begin in zip(arrays, begins, strict=True))


def _view(memory: Tensor, array: np.ndarray, begin: int) -> Tensor:
    """The part of some bytes that is for an array."""
    kind = torch.from_numpy(np.empty(0, array.dtype)).dtype
    return memory[begin : begin + array.nbytes].view(kind).view(array.shape)
