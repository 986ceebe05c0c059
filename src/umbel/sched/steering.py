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


def fork(books: Books, rank: int, rows: list[int]) -> Sequence[int]:
    """Let rows of one sample each, which are in the table but nowhere else, go on from where a sample is, with its
    tokens; returns their ranks. Nothing is computed again for it: what the tip of a running sample holds becomes a run
    that all share."""
    row, count, kv = books.waiting.rows[rank], len(rows), books.kv
    leaf = kv.leaf.item(row)
    kv.add_rows(count, leaf)
    books.lengths.repeat(row, count)
    samples = books.requests.first_sample[rows[0] : rows[0] + count]
    slot = books.seqs.slot_of.get(rank)
    if slot is None:
        books.waiting.extend(np.arange(count), np.ones(count, np.int64), samples)
        _expect(books, leaf, count)
        return [books.waiting.ranks_of(row)[0] for row in rows]
    ranks = books.waiting.extend_started(samples.tolist())
    new = _copy(books, slot, ranks, rows)
    if books.seqs.running[slot]:
        _split(books, slot, new)
    else:
        _wait_beside(books, slot, new)
    return ranks


def leave_out(books: Books, rank: int) -> None:
    """A sample that has not started never will."""
    books.waiting.drop(rank)
    books.kv.skip(books.kv.path(books.kv.leaf.item(books.waiting.rows[rank])))


def _copy(books: Books, slot: int, ranks: Sequence[int], rows: list[int]) -> list[int]:
    """Samples that begin with the tokens of another, one for each rank and row; returns their slots."""
    seqs, new = books.seqs, list[int]()
    n_out, prompt_len, limit = seqs.n_out.item(slot), seqs.prompt_len.item(slot), seqs.max_out.item(slot)
    for rank, row in zip(ranks, rows, strict=True):
        child = seqs.start(rank, row, books.waiting.samples[rank], prompt_len, limit)
        seqs.give(child, seqs.out[slot, :n_out])
        new.append(child)
    return new


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
        seqs.tip[child] = kv.grow(kv.parent.item(tip), child, kv.drawn.item(tip))
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
    waiting, seqs, row = books.waiting, books.seqs, books.waiting.rows[rank]
    waiting.drop(rank)
    prompt_len, limit = books.requests.prompt_len(row), books.requests.limit.item(row)
    slot = seqs.start(rank, row, waiting.samples[rank], prompt_len, limit)
    seqs.tip[slot] = books.kv.grow(books.kv.leaf.item(row), slot, books.requests.drawn.item(row))
    waiting.put_back(rank)
    return slot
