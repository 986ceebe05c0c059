"""Memory for logits, kept between steps: allocating tens of megabytes costs as much as sampling from them."""

from __future__ import annotations

import torch
from torch import Tensor


class LogitsMemory:
    """Room for the logits of as many rows as a step has had."""

    def __init__(self, vocab_size: int, device: torch.device):
        self._memory = torch.empty((0, vocab_size), dtype=torch.float32, device=device)

    def rows(self, count: int) -> Tensor:
        """Float32 `[count, vocab]`, of which nothing is known."""
        if len(self._memory) < count:
            self._memory = self._memory.new_empty((count, self._memory.shape[1]))
        return self._memory[:count]
