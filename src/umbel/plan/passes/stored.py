"""Says what a job would read of KV that earlier jobs kept, and whether that is quicker than computing it: the choice of
CachedAttention (arXiv 2403.19708), by prices."""

from __future__ import annotations

import numpy as np

from umbel.cost.roofline import Load, Price
from umbel.ir.kv_blocks import BLOCK, StoredKV
from umbel.ir.plan import Decision, Fact
from umbel.plan.draft import PlanDraft

DISK = 1e9  # bytes that are read in a second, until jobs have measured it
_TOGETHER = 8  # blocks that a step computes, where prices of one are asked for


def seconds_of_block(price: Price) -> float:
    """Seconds that computing a block takes as a part of a long prompt's step."""
    tokens = _TOGETHER * BLOCK
    load = Load.one(tokens, 0, tokens * tokens / 2, tokens)
    return float(price.each(load)[0]) / _TOGETHER


def name_stored(draft: PlanDraft) -> PlanDraft:
    """Decide "kv folder" where one was asked for: the prompt tokens whose KV is there, and the seconds that reading and
    that computing them takes. Blocks are only read while that is quicker, so that it never costs more than it saves but
    for the first few."""
    stored = draft.known.stored
    if stored is None:
        return draft
    read, size = stored_tokens(draft, stored), draft.price.shape.kv_bytes * BLOCK
    blocks, block_seconds = read / BLOCK, stored.block_seconds or size / DISK
    computing = blocks * seconds_of_block(draft.price)
    facts: dict[str, Fact] = {"read": read, "computed": draft.forest.n_tokens, "block": BLOCK, "computing": computing}
    facts |= {"reading": blocks * block_seconds, "saved": max(computing - blocks * block_seconds, 0.0)}
    source = "as earlier jobs read" if stored.block_seconds else "if the disk reads 1 GB/s"
    why = "of {computed:,} prompt tokens {read:,} are there: {reading:,.3g} s of reading, " + source
    if not read:
        why = "no block of {block} tokens of these prompts is there; what is computed is kept"
    elif facts["saved"]:
        why += ", for {computing:,.3g} s of computing, which the time of the plan has in it"
    else:
        why += ", and {computing:,.3g} s of computing, which is quicker: a few blocks are tried"
    return draft.decide(Decision("kv folder", f"{read:,} tokens", why, facts=facts))


def stored_tokens(draft: PlanDraft, stored: StoredKV) -> int:
    """Prompt tokens whose KV is kept, those of shared runs once; none of rows with an adapter."""
    forest, load = draft.forest, draft.workload
    reach, done = np.zeros(forest.n_nodes, np.int64), set[int]()
    for row in draft.order.tolist():
        leaf = int(forest.leaf[row])
        if leaf not in done and (load.scope is None or not load.scope[row]):
            reach[leaf] = stored.beginning(load.prompt(row).astype(np.int32))
        done.add(leaf)
    for node in range(forest.n_nodes - 1, -1, -1):  # children come behind their parents
        if (parent := int(forest.parent[node])) >= 0:
            reach[parent] = max(reach[parent], reach[node])
    return int(np.clip(reach - forest.start, 0, forest.end - forest.start).sum())
