"""Rows that can never fit the pool, known before any of them is computed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from umbel.cache.pages import PagePool
from umbel.ir.workload import Workload

Ints = NDArray[np.int64]


def never_fitting(
    workload: Workload, order: Ints, max_out: Ints, certain: NDArray[np.bool_], pool: PagePool
) -> Iterator[tuple[int, str]]:
    """Rows of the order that need more pages than there are, for the prompt alone or with the tokens that they surely
    generate (`certain`: all of `max_out`); each with the reason. The last token of an answer is not kept."""
    prompts = np.diff(workload.offsets)
    least = np.where(certain, max_out, 1)
    pages = -(-prompts // pool.page_size) - (-(least - 1) // pool.page_size)
    for row in order[pages[order] > pool.n_pages].tolist():
        what = f"prompt of {prompts[row]} tokens and {least[row]} to generate do"
        yield row, f"{what} not fit the KV pool of {pool.n_pages * pool.page_size} tokens"
