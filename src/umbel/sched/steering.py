"""Steers samples between two steps: gives them tokens, and forks them. No step may be under way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from umbel.cache import branches
from umbel.sched.books import Books

Ints = NDArray[np.int64]


def give(books: Books, rank: int, tokens: Sequence[int], limit: int) -> None:
    """Put tokens behind those that a sample has, as if it had drawn them; it may have `limit` in all. They are computed
    in one piece when it runs next, behind its prompt. A sample that has not started waits like one that was preempted.
    """
    slot, seqs = _slot_of(books, rank), books.seqs
    seqs.give(slot, tokens)
    seqs.max_out[slot] = limit
    books.kv.extend(np.array([seqs.tip.item(slot)]), len(tokens))


def fork(books: Books, rank: int, rows: list[int]) -> list[int]:
    """Let rows of one sample each, which are in the table but nowhere else, go on from where a sample is, with its
    tokens; returns their ranks. Nothing is computed again for it: what the tip of a running sample holds becomes a run
    that all share."""
    leaf = books.kv.leaf.item(int(books.waiting.rows[rank]))
    children = _enrol(books, rows, leaf)
    slot = books.seqs.slot_of.get(rank)
    if slot is None:
        _expect(books, leaf, len(children))
        return children
    new = [_take_up(books, child) for child in children]
    _copy(books, slot, new)
    if books.seqs.running[slot]:
        _split(books, slot, new)
    else:
        _wait_beside(books, slot, new)
    return children


def leave_out(books: Books, rank: int) -> None:
    """A sample that has not started never will."""
    books.waiting.drop(rank)
    books.kv.skip(books.kv.path(books.kv.leaf.item(int(books.waiting.rows[rank]))))


def _enrol(books: Books, rows: list[int], leaf: int) -> list[int]:
    """Rows of one sample each wait whose prompts end in a node that is there; returns their ranks."""
    count = len(rows)
    books.kv.add_rows(np.full(count, leaf))
    books.waiting.extend(np.arange(count), np.ones(count, np.int64), books.requests.first_sample[rows[0] :])
    books.lengths.add_rows(np.zeros(count, np.int64), ("",))
    return [books.waiting.ranks_of(row)[0] for row in rows]


def _copy(books: Books, slot: int, new: list[int]) -> None:
    """Samples begin with the tokens of another."""
    seqs = books.seqs
    for child in new:
        seqs.give(child, seqs.out[slot, : seqs.n_out.item(slot)])
        seqs.max_out[child] = seqs.max_out.item(slot)


def _split(books: Books, slot: int, new: list[int]) -> None:
    """New samples run beside the one that they were forked from."""
    seqs, kv = books.seqs, books.kv
    tip = seqs.tip.item(slot)
    behind = kv.start.item(tip) - seqs.prompt_len.item(slot)
    tokens = seqs.out[slot, behind : seqs.n_out.item(slot)]
    seqs.tip[[slot, *new]] = branches.fork(kv, tip, [slot, *new], tokens)
    seqs.primed[new] = seqs.primed[slot]
    for child in new:
        seqs.resume(child)


def _wait_beside(books: Books, slot: int, new: list[int]) -> None:
    """New samples wait to be computed again, as the one does that they were forked from."""
    seqs, kv = books.seqs, books.kv
    tip = seqs.tip.item(slot)
    _expect(books, kv.parent.item(tip), len(new))
    for child in new:
        seqs.tip[child] = kv.grow(kv.parent.item(tip), child)
        kv.length[seqs.tip.item(child)] = kv.length.item(tip)
        books.waiting.put_back(seqs.rank.item(child))


def _expect(books: Books, node: int, count: int) -> None:
    """So many more samples are to come below a node."""
    for each in books.kv.path(node):
        books.kv.waiting[each] += count


def _slot_of(books: Books, rank: int) -> int:
    """Where a sample is; one that has not started is taken up, as if it had been preempted."""
    if rank in books.seqs.slot_of:
        return books.seqs.slot_of[rank]
    slot = _take_up(books, rank)
    books.seqs.tip[slot] = books.kv.grow(books.kv.leaf.item(books.seqs.row.item(slot)), slot)
    books.waiting.put_back(rank)
    return slot


def _take_up(books: Books, rank: int) -> int:
    """A slot for a sample that has not started, without a tip."""
    waiting, row = books.waiting, int(books.waiting.rows[rank])
    waiting.drop(rank)
    prompt_len, limit = books.requests.prompt_len(row), books.requests.limit.item(row)
    return books.seqs.start(rank, row, int(waiting.samples[rank]), prompt_len, limit)
