"""From a draft to a Step: nodes in depth-first order, rows behind them, the pages they read, how to sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from umbel.cache.kv_forest import KVForest
from umbel.ir.params import SamplingParams
from umbel.ir.step import Sampling, Step
from umbel.ir.workload import Workload
from umbel.sched.draft import Draft
from umbel.sched.sequences import Sequences

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SamplingTable:
    """The sampling fields of every row as columns (`[rows]`), so that a step gathers them at once."""

    n: Ints
    temperature: NDArray[np.float64]
    top_k: Ints
    top_p: NDArray[np.float64]
    min_p: NDArray[np.float64]
    seed: Ints
    key: Ints
    logprobs: Ints
    min_tokens: Ints
    end_ids: tuple[tuple[int, ...], ...]  # ids that end the row, per row; banned before `min_tokens`

    @classmethod
    def of(cls, workload: Workload, default_seed: int, end_ids: tuple[tuple[int, ...], ...]) -> SamplingTable:
        """Columns of a workload's params; rows without a seed take `default_seed`."""
        params = workload.params

        def ints(values: list[int]) -> Ints:
            return np.array(values, np.int64)

        return cls(
            n=ints([p.n for p in params]),
            temperature=np.array([p.temperature for p in params], float),
            top_k=ints([max(p.top_k, 0) for p in params]),
            top_p=np.array([p.top_p for p in params], float),
            min_p=np.array([p.min_p for p in params], float),
            seed=ints([_seed(p, default_seed) for p in params]),
            key=workload.keys,
            logprobs=ints([-1 if p.logprobs is None else p.logprobs for p in params]),
            min_tokens=ints([p.min_tokens for p in params]),
            end_ids=end_ids,
        )


def _seed(params: SamplingParams, default: int) -> int:
    return default if params.seed is None else params.seed


def assemble(draft: Draft, seqs: Sequences, kv: KVForest, workload: Workload, table: SamplingTable) -> Step:
    """Lay the draft out as a Step. Nodes in use without rows below them in this step are left out."""
    forest = kv.forest
    nodes, counts = _nodes_of(draft, seqs, kv)
    order = np.lexsort((seqs.rank[draft.tails], seqs.leaf[draft.tails]))
    tails, tail_counts = draft.tails[order], draft.tail_tokens[order]
    # Entries: the prompt nodes, and after each leaf the tails that hang from it.
    keys = np.concatenate([nodes, seqs.leaf[tails]])
    is_tail = np.repeat([False, True], [len(nodes), len(tails)])
    entry = np.lexsort((is_tail, keys))
    place = np.empty_like(entry)
    place[entry] = np.arange(len(entry))
    rows = np.concatenate([counts, tail_counts])[entry]
    row_begin = np.cumsum(rows) - rows
    held = kv.held[nodes] + np.where(_again_mask(nodes, draft), 0, counts)
    start = np.concatenate([forest.start[nodes], seqs.prompt_len[tails]])[entry]
    end = np.concatenate([forest.start[nodes] + held, seqs.prompt_len[tails] + seqs.held[tails] + tail_counts])[entry]
    above = np.concatenate([forest.parent[nodes], seqs.leaf[tails]])
    parent = np.where(above < 0, -1, place[np.searchsorted(nodes, np.maximum(above, 0))])[entry]
    after = np.searchsorted(keys[entry], forest.subtree_end[nodes])
    last = np.concatenate([after, place[len(nodes) :] + 1])[entry]
    subtree_end = np.append(row_begin, rows.sum())[last]
    pages, page_begin = _pages_of(nodes, tails, seqs, kv)
    tokens = np.concatenate([_node_tokens(draft, nodes, counts, kv, workload), _tail_tokens(tails, tail_counts, seqs)])
    positions = np.arange(rows.sum()) - np.repeat(row_begin, rows) + np.repeat(end - rows, rows)
    return Step(
        tokens=_in_order(tokens, np.concatenate([counts, tail_counts]), entry),
        positions=positions,
        fresh=~np.repeat(np.concatenate([_again_mask(nodes, draft), np.zeros(len(tails), bool)])[entry], rows),
        parent=parent,
        start=start,
        end=end,
        row_begin=row_begin,
        row_end=row_begin + rows,
        subtree_end=subtree_end,
        pages=pages,
        page_begin=page_begin[entry],
        page_size=kv.pool.page_size,
        sampling=_sampling(draft, seqs, table, (row_begin + rows - 1)[place], nodes, order),
    )


def _nodes_of(draft: Draft, seqs: Sequences, kv: KVForest) -> tuple[Ints, Ints]:
    """Prompt nodes with rows of their own or below them (`[nodes]`, ascending), and how many rows each has itself."""
    with_rows = np.array([*draft.nodes, *draft.again], np.int64)
    roots = np.unique(np.concatenate([with_rows, seqs.leaf[draft.tails]]))
    in_use = np.sort(np.fromiter(kv.in_use, np.int64, len(kv.in_use)))
    # A node stays when the next node with rows, counted from itself, lies in its subtree.
    following = np.searchsorted(roots, in_use)
    nodes = in_use[np.append(roots, kv.forest.n_nodes)[following] < kv.forest.subtree_end[in_use]]
    counts = np.zeros(len(nodes), np.int64)
    counts[np.searchsorted(nodes, with_rows)] = [*draft.nodes.values(), *(1 for _ in draft.again)]
    return nodes, counts


def _again_mask(nodes: Ints, draft: Draft) -> NDArray[np.bool_]:
    return np.isin(nodes, np.fromiter(draft.again, np.int64, len(draft.again)))


def _node_tokens(draft: Draft, nodes: Ints, counts: Ints, kv: KVForest, workload: Workload) -> Ints:
    """Token ids that the prompt nodes feed, node after node."""
    own = np.flatnonzero(counts)
    runs = zip(nodes[own].tolist(), counts[own].tolist(), strict=True)
    parts = [_run(node, count, node in draft.again, kv, workload) for node, count in runs]
    return np.concatenate([np.empty(0, np.int64), *parts])


def _tail_tokens(tails: Ints, counts: Ints, seqs: Sequences) -> Ints:
    """Generated token ids that the tails feed, tail after tail."""
    owner = np.repeat(tails, counts)
    within = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    tokens: Ints = seqs.out[owner, seqs.held[owner] + within].astype(np.int64)
    return tokens


def _in_order(flat: Ints, sizes: Ints, entry: Ints) -> Ints:
    """Runs of `sizes` in `flat`, laid out in the order `entry`."""
    begin = (np.cumsum(sizes) - sizes)[entry]
    sizes = sizes[entry]
    return flat[np.repeat(begin - (np.cumsum(sizes) - sizes), sizes) + np.arange(len(flat))]


def _run(node: int, count: int, again: bool, kv: KVForest, workload: Workload) -> NDArray[np.int32]:
    first = kv.forest.start[node] + kv.held[node] - (1 if again else 0)
    base = workload.offsets[kv.forest.source[node]] + first
    return workload.tokens[base : base + count]


def _pages_of(nodes: Ints, tails: Ints, seqs: Sequences, kv: KVForest) -> tuple[Ints, Ints]:
    """All pages the step reads, flat, and where each entry's begin (nodes first, then tails)."""
    parts = [kv.pages[n] for n in nodes.tolist()]
    counts = seqs.n_pages[tails]
    table = seqs.pages[tails]
    flat = np.concatenate([*parts, table[np.arange(table.shape[1]) < counts[:, None]]])
    sizes = np.concatenate([np.array([len(p) for p in parts], np.int64), counts])
    return flat, np.cumsum(sizes) - sizes


def _sampling(
    draft: Draft, seqs: Sequences, table: SamplingTable, last_row: Ints, nodes: Ints, order: Ints
) -> Sampling:
    """Columns for the samples: tails that reach their end (in draft order), then first tokens from their leaves."""
    entry_of_tail = np.empty_like(order)
    entry_of_tail[order] = np.arange(len(order)) + len(nodes)
    reaches = seqs.held[draft.tails] + draft.tail_tokens == seqs.n_out[draft.tails]
    firsts = np.array(draft.firsts, np.int64)
    slots = np.concatenate([draft.tails[reaches], firsts])
    entries = np.concatenate([entry_of_tail[reaches], np.searchsorted(nodes, seqs.leaf[firsts])])
    rows = seqs.row[slots]
    early = np.flatnonzero(seqs.n_out[slots] < table.min_tokens[rows])
    return Sampling(
        rows=last_row[entries],
        temperature=table.temperature[rows],
        top_k=table.top_k[rows],
        top_p=table.top_p[rows],
        min_p=table.min_p[rows],
        seeds=table.seed[rows],
        keys=table.key[rows],
        samples=seqs.sample[slots],
        positions=seqs.prompt_len[slots] + seqs.n_out[slots],
        logprobs=table.logprobs[rows],
        banned=tuple((int(i), table.end_ids[rows[i]]) for i in early.tolist()),
    )
