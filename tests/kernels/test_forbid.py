"""Masks on logits: -inf in the place of every token that a mask leaves out, and nothing else touched."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from umbel.ir.token_masks import n_words
from umbel.kernels.dispatch import kernels
from umbel.kernels.rows import forbid

WIDTHS = (1, 31, 32, 33, 300, 1023)


def masks_of(width: int) -> np.ndarray:
    """Masks that allow nothing, everything, one token, and any."""
    words = n_words(width)
    one = np.zeros(words, np.uint32)
    one[(width - 1) // 32] = 1 << (width - 1) % 32
    drawn = np.random.default_rng(width).integers(0, 2**32, (2, words), dtype=np.uint32)
    return np.stack([np.zeros(words, np.uint32), np.full(words, 2**32 - 1, np.uint32), one, *drawn])


def by_hand(logits: torch.Tensor, rows: np.ndarray, mask: np.ndarray, masks: np.ndarray) -> torch.Tensor:
    found = logits.clone()
    for row, kind in zip(rows.tolist(), mask.tolist(), strict=True):
        for token in range(logits.shape[1] if kind >= 0 else 0):
            if not int(masks[kind, token // 32]) >> token % 32 & 1:
                found[row, token] = -torch.inf
    return found


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_only_what_masks_leave_out_is_changed(width: int, dtype: torch.dtype) -> None:
    logits = torch.randn(9, width, generator=torch.Generator().manual_seed(width)).to(dtype)
    rows, mask, masks = np.array([7, 0, 3, 4, 8, 1]), np.array([0, 1, 2, 3, 4, -1]), masks_of(width)
    wanted = by_hand(logits, rows, mask, masks)
    forbid(logits, rows, mask, masks)
    assert torch.equal(logits, wanted)


def test_kernels_refuse_what_is_out_of_range() -> None:
    native = kernels().native
    if native is None:
        pytest.skip("there are no compiled kernels here")
    logits, masks = torch.zeros(2, 40), np.zeros((3, 2), np.uint32)
    for rows, mask, given in (([2], [0], masks), ([0], [3], masks), ([-1], [0], masks), ([0], [0], masks[:, :1])):
        with pytest.raises(IndexError):
            native.forbid(logits, np.array(rows), np.array(mask), given)
