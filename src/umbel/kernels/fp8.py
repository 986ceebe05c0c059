"""Which devices know numbers of 8 bits (e4m3)."""

from __future__ import annotations

import torch


def converts_fp8(device: torch.device) -> bool:
    """Whether a device has instructions for e4m3, as GPUs from Ada and Hopper on do."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9)
