"""Rows that can never fit the pool: known before any of them is computed, or found when nothing else can be done."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from umbel.cache.memories import DRAWN_WHOLE
from umbel.cache.tree import KVTree
from umbel.sched.books import Books
from umbel.sched.request_table import RequestTable

Ints = NDArray[np.int64]


def never_fitting(requests: RequestTable, order: Ints, kv: KVTree) -> Iterator[tuple[int, str]]:
    """Rows of the order that need more pages than there are, for the prompt alone or with the tokens that they surely
    generate (all, where nothing but their limit ends them); each with the reason. The last token of an answer is not
    kept, and where paths are cut down nothing is known of answers."""
    prompts, pool = requests.length[order], kv.pool
    stays = (kv.apart is None) | (requests.drawn[order] == DRAWN_WHOLE)
    least = np.where(requests.certain[order] & stays, requests.limit[order], 1)
    pages = -(-prompts // pool.page_size) - (-(least - 1) // pool.page_size)
    for at in np.flatnonzero(pages > pool.n_pages).tolist():
        what = f"prompt of {prompts[at]} tokens and {least[at]} to generate do"
        yield int(order[at]), f"{what} not fit the KV pool of {pool.n_pages * pool.page_size} tokens"


def unfit_row(books: Books) -> tuple[int, str] | None:
    """The row in front, for which there is no room though nothing else could be scheduled, with the reason; None when
    no row is left."""
    slots, seqs = books.seqs.runners(), books.seqs
    rank = seqs.rank.item(slots[0]) if len(slots) else books.waiting.first()
    if rank is None:
        return None
    row, pool = books.waiting.rows[rank], books.kv.pool
    made = seqs.n_out.item(seqs.slot_of[rank]) if rank in seqs.slot_of else 0
    what = f"prompt of {books.requests.prompt_len(row)} tokens and {made} generated"
    return row, f"{what} do not fit the KV pool of {pool.n_pages * pool.page_size} tokens"
