"""Sizes the KV pool: what the whole workload could hold at a time, within what the machine leaves."""

from __future__ import annotations

from umbel.errors import CapacityError
from umbel.ir.plan import Decision
from umbel.plan.draft import Draft


def size_pool(draft: Draft) -> Draft:
    """All rows at once if memory allows, else as much as it does; raises CapacityError when one row does not fit."""
    asked = draft.config.kv_tokens
    if asked is not None:
        return draft.decide(Decision("kv_tokens", asked, "as asked"), kv_tokens=asked)
    page = draft.config.page_size
    demand = _demand(draft)
    room = _room(draft) // page * page
    least = _largest_row(draft)
    if room < least:
        raise CapacityError(_no_fit(draft, room, least))
    if demand <= room:
        reason = f"all {len(draft.workload):,} rows fit at once; memory would allow {room:,}"
        return draft.decide(Decision("kv_tokens", demand, reason), kv_tokens=demand)
    share = draft.price.machine.kv_fraction
    reason = f"{share:.0%} of the memory that weights leave; all rows at once would hold {demand:,}"
    return draft.decide(Decision("kv_tokens", room, reason), kv_tokens=room)


def _room(draft: Draft) -> int:
    """KV tokens that fit the share of memory which KV may take."""
    machine, shape = draft.price.machine, draft.price.shape
    free = max(machine.memory_bytes - shape.weight_bytes, 0)
    return int(free * machine.kv_fraction) // shape.kv_bytes


def _demand(draft: Draft) -> int:
    """Tokens, in whole pages, that every node and every sample hold together; a little more, so that none waits."""
    page = draft.config.page_size
    size = draft.forest.end - draft.forest.start
    nodes = -(-size // page)
    tails = -(-draft.lengths // page) * draft.samples
    return (int(nodes.sum()) + int(tails.sum()) + 1) * page


def _largest_row(draft: Draft) -> int:
    """Tokens that the longest prompt with one sample holds at the least (it may span many short nodes)."""
    page = draft.config.page_size
    prompt = draft.workload.offsets[1:] - draft.workload.offsets[:-1]
    longest = int((prompt + draft.lengths).max(initial=1))
    return -(-longest // page) * page


def _no_fit(draft: Draft, room: int, least: int) -> str:
    machine, shape = draft.price.machine, draft.price.shape
    return (
        f"the largest row needs KV for {least:,} tokens, but {machine.memory_bytes / 1e9:.2f} GB of free memory less "
        f"{shape.weight_bytes / 1e9:.2f} GB of weights leave room for {room:,}; free memory, use --dtype bfloat16, a "
        "smaller model or a lower --max-tokens, or set --kv-tokens"
    )
