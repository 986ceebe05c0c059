"""From a draft to a Step: nodes in depth-first order, rows behind them, the pages they read, how to sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umbel.cache.kv_forest import KVForest
from umbel.ir.step import Sampling, Step
from umbel.sched.draft import Draft
from umbel.sched.request_table import RequestTable
from umbel.sched.sequences import Sequences

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Layout:
    """A step with what it was made of: the prompt nodes, the tails as drafted, their `order` in the step, the places of
    nodes and then tails among its entries (`place`, and `entry` the other way round), and counts of changes."""

    step: Step
    nodes: Ints
    tails: Ints
    order: Ints
    entry: Ints
    place: Ints
    changes: int
    page_changes: int


def assemble(draft: Draft, seqs: Sequences, kv: KVForest, requests: RequestTable) -> Layout:
    """Lay the draft out as a Step. Nodes in use without rows below them in this step are left out."""
    forest = kv.forest
    nodes, counts = _nodes_of(draft, seqs, kv)
    again = _again_mask(nodes, draft)
    order = np.lexsort((seqs.rank[draft.tails], seqs.leaf[draft.tails]))
    tails, tail_counts = draft.tails[order], draft.tail_tokens[order]
    # Entries: the prompt nodes, and after each leaf the tails that hang from it.
    keys = np.concatenate([nodes, seqs.leaf[tails]])
    entry = np.lexsort((np.arange(len(keys)) >= len(nodes), keys))
    place = np.empty_like(entry)
    place[entry] = np.arange(len(entry))
    rows = np.concatenate([counts, tail_counts])[entry]
    row_begin = np.cumsum(rows) - rows
    held = kv.held[nodes] + np.where(again, 0, counts)
    start = np.concatenate([forest.start[nodes], seqs.prompt_len[tails]])[entry]
    end = np.concatenate([forest.start[nodes] + held, seqs.prompt_len[tails] + seqs.held[tails] + tail_counts])[entry]
    above = np.concatenate([forest.parent[nodes], seqs.leaf[tails]])
    parent = np.where(above < 0, -1, place[np.searchsorted(nodes, np.maximum(above, 0))])[entry]
    after = np.searchsorted(keys[entry], forest.subtree_end[nodes])
    last = np.concatenate([after, place[len(nodes) :] + 1])[entry]
    pages, page_begin = pages_of(nodes, tails, seqs, kv)
    tokens = _tail_tokens(tails, tail_counts, seqs)
    if counts.any():
        both = np.concatenate([_node_tokens(nodes, counts, again, kv, requests), tokens])
        tokens = _in_order(both, np.concatenate([counts, tail_counts]), entry)
    step = Step(
        tokens=tokens,
        positions=np.arange(rows.sum()) - np.repeat(row_begin, rows) + np.repeat(end - rows, rows),
        fresh=~np.repeat(np.concatenate([again, np.zeros(len(tails), bool)])[entry], rows),
        parent=parent,
        start=start,
        end=end,
        row_begin=row_begin,
        row_end=row_begin + rows,
        subtree_end=np.append(row_begin, rows.sum())[last],
        pages=pages,
        page_begin=page_begin[entry],
        page_size=kv.pool.page_size,
        sampling=_sampling(draft, seqs, requests, (row_begin + rows - 1)[place], nodes, order),
    )
    return Layout(step, nodes, draft.tails, order, entry, place, kv.changes, seqs.page_changes)


def _nodes_of(draft: Draft, seqs: Sequences, kv: KVForest) -> tuple[Ints, Ints]:
    """Prompt nodes with rows of their own or below them (`[nodes]`, ascending), and how many rows each has itself."""
    with_rows = np.array([*draft.nodes, *draft.again], np.int64)
    roots = np.sort(np.concatenate([with_rows, seqs.leaf[draft.tails]]))
    in_use = kv.nodes_in_use()
    # A node stays when the next node with rows, counted from itself, lies in its subtree.
    following = np.searchsorted(roots, in_use)
    nodes = in_use[np.append(roots, kv.forest.n_nodes)[following] < kv.forest.subtree_end[in_use]]
    counts = np.zeros(len(nodes), np.int64)
    counts[np.searchsorted(nodes, with_rows)] = [*draft.nodes.values(), *(1 for _ in draft.again)]
    return nodes, counts


def _again_mask(nodes: Ints, draft: Draft) -> NDArray[np.bool_]:
    return np.isin(nodes, np.fromiter(draft.again, np.int64, len(draft.again)))


def _node_tokens(nodes: Ints, counts: Ints, again: NDArray[np.bool_], kv: KVForest, requests: RequestTable) -> Ints:
    """Token ids that the prompt nodes feed, node after node: what they lack, or once more the last one they have."""
    first = requests.offsets[kv.forest.source[nodes]] + kv.forest.start[nodes] + kv.held[nodes] - again
    tokens: Ints = requests.tokens[_runs(first, counts)].astype(np.int64)
    return tokens


def _runs(first: Ints, counts: Ints) -> Ints:
    """The numbers from `first[i]` on, `counts[i]` of them, for each i in turn."""
    return np.repeat(first - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())


def _tail_tokens(tails: Ints, counts: Ints, seqs: Sequences) -> Ints:
    """Generated token ids that the tails feed, tail after tail."""
    tokens: Ints = seqs.out[np.repeat(tails, counts), _runs(seqs.held[tails], counts)].astype(np.int64)
    return tokens


def _in_order(flat: Ints, sizes: Ints, entry: Ints) -> Ints:
    """Runs of `sizes` in `flat`, laid out in the order `entry`."""
    return flat[_runs((np.cumsum(sizes) - sizes)[entry], sizes[entry])]


def pages_of(nodes: Ints, tails: Ints, seqs: Sequences, kv: KVForest) -> tuple[Ints, Ints]:
    """All pages the step reads, flat, and where each entry's begin (nodes first, then tails)."""
    sizes, tail_sizes = kv.sizes[nodes], seqs.n_pages[tails]
    of_nodes = kv.table[_runs(kv.first_page[nodes], sizes)]
    of_tails = seqs.pages[np.repeat(tails, tail_sizes), _runs(np.zeros_like(tails), tail_sizes)]
    both = np.concatenate([sizes, tail_sizes])
    return np.concatenate([of_nodes, of_tails]), np.cumsum(both) - both


def _sampling(
    draft: Draft, seqs: Sequences, requests: RequestTable, last_row: Ints, nodes: Ints, order: Ints
) -> Sampling:
    """Columns for the samples: tails that reach their end (in draft order), then first tokens from their leaves."""
    entry_of_tail = np.empty_like(order)
    entry_of_tail[order] = np.arange(len(order)) + len(nodes)
    reaches = seqs.held[draft.tails] + draft.tail_tokens == seqs.n_out[draft.tails]
    firsts = np.array(draft.firsts, np.int64)
    slots = np.concatenate([draft.tails[reaches], firsts])
    entries = np.concatenate([entry_of_tail[reaches], np.searchsorted(nodes, seqs.leaf[firsts])])
    rows = seqs.row[slots]
    return Sampling(
        at=last_row[entries],
        temperature=requests.temperature[rows],
        top_k=requests.top_k[rows],
        top_p=requests.top_p[rows],
        min_p=requests.min_p[rows],
        streams=requests.stream[rows],
        keys=requests.key[rows],
        samples=seqs.sample[slots],
        positions=seqs.prompt_len[slots] + seqs.n_out[slots],
        logprobs=requests.logprobs[rows],
    )
