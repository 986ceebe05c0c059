"""Sets of tokens as bits, against sets."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from umbel.ir.token_masks import DrawMasks, all_but, n_words, unpacked
from umbel.kernels import reference


@given(st.integers(1, 200), st.sets(st.integers(0, 250)))
def test_a_mask_has_a_bit_for_each_token(vocab_size: int, ids: set[int]) -> None:
    mask = all_but(ids, vocab_size)
    assert mask.dtype == np.uint32 and mask.shape == (n_words(vocab_size),)
    bits = {t for t in range(len(mask) * 32) if int(mask[t // 32]) >> t % 32 & 1}
    assert bits == set(range(vocab_size)) - ids
    assert np.flatnonzero(unpacked(mask, vocab_size)).tolist() == sorted(bits)
    on_device = reference.unpacked(torch.from_numpy(mask.view(np.int32))[None], vocab_size)
    assert on_device.nonzero()[:, 1].tolist() == sorted(bits) and on_device.shape == (1, vocab_size)


ROWS = st.lists(st.integers(-1, 2), min_size=6, max_size=6)


@given(ROWS, ROWS, st.integers(0, 1000))
def test_two_masks_allow_what_both_do(ours: list[int], theirs: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = (
        DrawMasks(np.array(rows), rng.integers(0, 2**32, (3, 2), np.uint32, endpoint=False)) for rows in (ours, theirs)
    )
    both = one.both(other)
    for draw in range(6):
        wanted = np.full(2, 2**32 - 1, np.uint32)
        for part in (one, other):
            wanted &= part.masks[part.mask[draw]] if part.mask[draw] >= 0 else wanted
        assert (both.mask[draw] < 0) == (one.mask[draw] < 0 and other.mask[draw] < 0)
        if both.mask[draw] >= 0:
            assert both.masks[both.mask[draw]].tolist() == wanted.tolist()
