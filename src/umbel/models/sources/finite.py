"""What every source holds the numbers of its tensors to."""

from __future__ import annotations

import torch
from torch import Tensor

from umbel.errors import ModelError


def check_finite(name: str, tensor: Tensor) -> None:
    """Raise ModelError for a tensor with values that are NaN or infinite; floats of 8 bits are looked at when they have
    been decoded."""
    if not tensor.is_floating_point() or tensor.itemsize == 1 or not tensor.numel():
        return
    # The extremes are NaN or infinite if any value is, and need no second copy of the tensor.
    low, high = torch.aminmax(tensor)
    if not (torch.isfinite(low) and torch.isfinite(high)):
        raise ModelError(f"tensor {name} has values that are NaN or infinite: the checkpoint is damaged")
