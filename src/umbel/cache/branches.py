"""How the KV tree branches while it runs: tips become shared runs with several tips below, and runs are cut in two.

No token is computed again for it, and no page is copied: a partly filled page stays with the run it is in.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from umbel.cache.tree import KVTree

TokenIds = NDArray[np.int32]


def fork(tree: KVTree, tip: int, slots: list[int], tokens: TokenIds) -> list[int]:
    """New tips for the samples in `slots`, in place of one tip that is in use, each with the tokens that it had.

    What the tip holds becomes a run that all share; `tokens` are those of the tip. Tokens that are not computed yet
    stay with each sample.
    """
    held, more = tree.held.item(tip), len(slots) - 1
    length = tree.length.item(tip) - held
    parent, drawn = tree.parent.item(tip), tree.drawn.item(tip)
    for node in tree.path(parent):
        tree.users[node] += more
        tree.waiting[node] += more
    if held:
        _freeze(tree, tip, tokens[:held])
        tree.users[tip] = tree.waiting[tip] = len(slots)
        parent = tip
    else:
        tree.note_use(tip, used=False)
        tree.users[tip] = 0
        tree.forget(tip)
    tips = [tree.grow(parent, slot, drawn) for slot in slots]
    for new in tips:
        tree.length[new] = length
        tree.users[new] = 1
        tree.note_use(new, used=True)
    return tips


def keep(tree: KVTree, tip: int, tokens: TokenIds) -> None:
    """The sample of a tip that is in use is done, and what the tip holds stays as a run, until its pages are wanted."""
    path = tree.path(tip)
    if tree.held.item(tip) and tree.idle.keep.retains:
        _freeze(tree, tip, tokens[: tree.held.item(tip)])
        tree.unpin(path, done=True)
    else:
        tree.leave(tip, done=True)


def split(tree: KVTree, node: int, at: int) -> int:
    """Cut a run in two; returns the new upper part, with its first `at` tokens. What is below stays below `node`.

    Raises ValueError where this would cut a page in two.
    """
    pages, rest = divmod(at, tree.pool.page_size)
    if not 0 < at < tree.length.item(node) or (rest and tree.table.count.item(node)):
        raise ValueError(f"a run of {tree.length.item(node)} tokens cannot be split at {at}: not at a page's edge")
    upper = tree.number()
    tree.slot[upper], tree.scope[upper], tree.drawn[upper] = -1, tree.scope[node], tree.drawn[node]
    tree.parent[upper], tree.parent[node] = tree.parent.item(node), upper
    tree.start[upper], tree.length[upper] = tree.start.item(node), at
    tree.start[node] += at
    tree.length[node] -= at
    for column in (tree.held, tree.seen):
        column[upper] = min(column.item(node), at)
        column[node] -= column.item(upper)
    tree.labels.put_above(node, upper)
    tree.tokens.split(node, upper, at)
    if tree.index is not None:
        tree.index.drop(node)
        tree.index.add(upper)
        tree.index.add(node)
    tree.users[upper], tree.waiting[upper] = tree.users[node], tree.waiting[node]
    _split_pages(tree, node, upper, pages)
    return upper


def _split_pages(tree: KVTree, node: int, upper: int, count: int) -> None:
    """The first `count` pages of `node` go to `upper`; both are as idle or in use as the one was."""
    if not tree.table.count.item(node):
        return
    held = tree.table.cut(node, 0)
    tree.table.put(upper, held[:count])
    tree.table.put(node, held[count:])
    if tree.users[node]:
        tree.note_use(upper, used=True)
    else:
        moment = tree.idle.remove(node)
        tree.idle.add(upper, count, moment)
        tree.idle.add(node, len(held) - count, moment)


def _freeze(tree: KVTree, tip: int, tokens: TokenIds) -> None:
    """A tip becomes a shared run of what it holds."""
    tree.slot[tip] = -1
    tree.length[tip] = tree.seen[tip] = len(tokens)
    tree.labels.widen(tip, tree.parent.item(tip))
    tree.tokens.write(tip, tokens.copy())
    if tree.index is not None:
        tree.index.add(tip)
