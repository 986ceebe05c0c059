"""Builds the prefix forest of a workload: every run of tokens that prompts share becomes one node.

The compact trie of BatchLLM (arXiv 2412.03594, section 4) and ChunkAttention (arXiv 2402.15220), built top down on
whole arrays instead of prompt by prompt: a group of rows that agree so far is compared with its first row, a window at
a time, up to the first disagreement, and split there. Every shared token is read a small constant number of times,
nothing recurses, and rows beyond their last shared token are not read at all. Three rows:

    a 1 2 3 4 5        one group [a b c] of depth 0
    b 1 2 3 4 6 7      split at 0: [a b] begin with 1, [c] with 8; c is alone, so its node is done
    c 8 9              extend: a and b agree on 4 tokens
                       split at 4: [a] goes on with 5, [b] with 6; both alone
                       finish: nodes by where their rows begin: 0 [1 2 3 4], 1 [5], 2 [6 7], 3 [8 9]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isclose
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from umbel.ir.forest import Forest
from umbel.ir.plan import Decision, Fact, Refusal
from umbel.ir.workload import Workload
from umbel.plan.draft import PlanDraft, flat_forest
from umbel.plan.forest.documents import cut_at_documents
from umbel.plan.forest.price import price_runs
from umbel.plan.forest.regroup import regroup
from umbel.plan.forest.rules import best_groups, every_fork, paper_groups, paying_forks

Ints = NDArray[np.int64]

FIRST_WINDOW = 16  # tokens compared before a group has agreed on anything; doubles while it agrees
BLOCK = 1 << 20  # tokens compared at once: bounds the scratch memory, about 40 bytes each


# The modes of EngineConfig.prefix, as plans name them.
MODES: Mapping[str, str] = MappingProxyType(
    {
        "none": "no sharing",
        "paper": "one level (paper)",
        "one-level": "one level (optimum)",
        "every-fork": "every fork",
        "forest": "the forks that pay",
    }
)


def share_prefixes(draft: PlanDraft) -> PlanDraft:
    """Compute shared runs once: by default those, at all levels, whose sharing pays; else as `config.prefix` says."""
    mode, page = draft.config.prefix, draft.config.page_size
    full = build_forest(draft.workload)
    costs = price_runs(draft, full)
    groupings = {
        "paper": paper_groups(full, page, own_token=True),
        "one-level": best_groups(full, page),
        "every-fork": every_fork(full),
        "forest": paying_forks(full, costs),
    }
    priced = {name: costs.total(full, grouping) for name, grouping in groupings.items()}
    priced["none"] = costs.alone(full)
    forest = flat_forest(draft.workload) if mode == "none" else regroup(full, groupings[mode])
    forest = cut_at_documents(forest, draft.workload)
    others = (_refusal(name, priced[name], priced[mode]) for name in MODES if name != mode)
    value = f"{len(draft.workload.tokens) - forest.n_tokens:,} tokens shared"
    opened = {name: int(grouping.opened.sum()) for name, grouping in groupings.items()}
    decision = Decision("prefix", value, _why(mode, opened), facts=_facts(mode, priced, opened))
    return draft.decide(decision, forest=forest, order=forest.order).refuse(*others)


def _refusal(name: str, other: tuple[int, float], chosen: tuple[int, float]) -> Refusal:
    """Why another mode is not used; sums in another order differ in their last digits, which does not count."""
    if other[0] == chosen[0] and isclose(other[1], chosen[1], rel_tol=1e-9):
        return Refusal(f"prefix: {MODES[name]}", 0.0, "makes no difference here")
    facts = {"computed_prompt_tokens": other[0]}
    return Refusal(
        f"prefix: {MODES[name]}", other[1] - chosen[1], "computes {computed_prompt_tokens:,} prompt tokens", facts
    )


def _facts(mode: str, priced: Mapping[str, tuple[int, float]], opened: Mapping[str, int]) -> dict[str, Fact]:
    """The tokens and seconds of the mode, its forks, and what the other modes compute."""
    (once, seconds), every = priced[mode], priced["every-fork"]
    return {
        "prompt_tokens": priced["none"][0],
        "computed_prompt_tokens": once,
        "seconds": seconds,
        "forks": opened["every-fork"],
        "runs": opened.get(mode, 0),
        "recomputed_tokens": once - every[0],
        "spared_seconds": every[1] - seconds,
        "one_level_tokens": priced["one-level"][0],
        "paper_tokens": priced["paper"][0],
    }


def _why(mode: str, opened: Mapping[str, int]) -> str:
    """The tokens computed, how many forks are kept, and what one level of groups would compute."""
    computed = "{computed_prompt_tokens:,} of {prompt_tokens:,} prompt tokens to compute"
    forks = opened["every-fork"]
    if not forks:
        return f"no prompt is the beginning of another or begins like one: {computed}"
    text = computed + ", {seconds:.3g} s with reading and upkeep"
    if mode == "forest" and opened["forest"] < forks:
        text += "; {runs:,} of {forks:,} forks are kept, the others folded into their branches: {recomputed_tokens:,} "
        text += "tokens computed again, {spared_seconds:.2g} s spared"
    elif mode == "forest":
        text += "; all {forks:,} forks pay" if forks > 1 else "; the only fork pays"
    elif mode in ("paper", "one-level"):
        text += "; {runs:,} groups of one level, for {forks:,} forks"
    return text + "; in one level of groups {one_level_tokens:,}, by the published rule {paper_tokens:,}"


def build_forest(workload: Workload) -> Forest:
    """The forest of all prompts; time linear in their shared tokens, memory in the rows.

    Siblings, and the roots of one scope, stand in the order of their first row in the input; scopes, which share
    nothing, in the order of their numbers. Raises ValueError on an empty prompt.
    """
    lengths = np.diff(workload.offsets)
    if len(lengths) and lengths.min() < 1:
        raise ValueError(f"row {int(lengths.argmin())} has an empty prompt: a forest needs at least one token a row")
    keys = workload.tokens if workload.documents is None else workload.documents.keys(workload.tokens)
    trie = _Trie(keys, workload.offsets[:-1], lengths)
    groups = trie.split(trie.by_scope(workload.scope))
    while len(groups.node):
        agreed, open_ = trie.extend(groups)
        groups = _RowGroups.join(open_, trie.split(agreed))
    return trie.finish()


@dataclass(slots=True)
class _RowGroups:
    """Groups of rows that agree up to `depth`: rows `order[lo:hi]`, whose node is still growing."""

    node: Ints
    lo: Ints
    hi: Ints
    depth: Ints
    window: Ints

    @classmethod
    def at_roots(cls, lo: Ints, hi: Ints) -> _RowGroups:
        """Rows that agree on nothing yet, below a root that is no node."""
        return cls(np.full_like(lo, -1), lo, hi, np.zeros_like(lo), np.zeros_like(lo))

    @classmethod
    def join(cls, a: _RowGroups, b: _RowGroups) -> _RowGroups:
        """The groups of both, one after the other."""
        pairs = ((a.node, b.node), (a.lo, b.lo), (a.hi, b.hi), (a.depth, b.depth), (a.window, b.window))
        return cls(*(np.concatenate(pair) for pair in pairs))

    def where(self, mask: NDArray[np.bool_]) -> _RowGroups:
        """The groups that `mask` picks."""
        return _RowGroups(self.node[mask], self.lo[mask], self.hi[mask], self.depth[mask], self.window[mask])


@dataclass(slots=True)
class _Trie:
    """A compact trie of the prompts while it grows: nodes in order of creation, the rows of a group adjacent in
    `order`."""

    tokens: NDArray[np.int32]
    first: Ints  # [rows] where a prompt begins in `tokens`
    lengths: Ints  # [rows]
    order: Ints = field(init=False)
    leaf: Ints = field(init=False)
    n_nodes: int = 0
    created: list[tuple[Ints, Ints, Ints, Ints]] = field(default_factory=list)  # parent, start, lo, hi
    ended: list[tuple[Ints, Ints]] = field(default_factory=list)  # node, its end

    def __post_init__(self) -> None:
        self.order = np.arange(len(self.lengths))
        self.leaf = np.empty(len(self.lengths), np.int64)

    def by_scope(self, scope: Ints | None) -> _RowGroups:
        """A group of all rows of each scope (`[rows]`; None: there is one)."""
        scopes = np.zeros(len(self.order), np.int64) if scope is None else scope
        self.order = np.argsort(scopes, kind="stable")
        _, lo, size = np.unique(scopes[self.order], return_index=True, return_counts=True)
        return _RowGroups.at_roots(lo, lo + size)

    def extend(self, groups: _RowGroups) -> tuple[_RowGroups, _RowGroups]:
        """Read one window further in every group; returns the groups to split here and those that still agree."""
        at, size = spans(groups.lo, groups.hi), groups.hi - groups.lo
        rows, begin = self.order[at], np.cumsum(size) - size
        limit = np.minimum.reduceat(self.lengths[rows], begin) - groups.depth  # the shortest row ends the agreement
        width = np.minimum(groups.window, limit)
        group = np.repeat(np.arange(len(size)), size)
        agree = self._agreement(rows, rows[begin], group, groups.depth, width)
        still = (agree == groups.window) & (agree < limit)
        grown = _RowGroups(groups.node, groups.lo, groups.hi, groups.depth + agree, groups.window * 2)
        return grown.where(~still), grown.where(still)

    def _agreement(self, rows: Ints, leaders: Ints, group: Ints, depth: Ints, width: Ints) -> Ints:
        """Tokens from `depth`, at most `width`, that all rows of a group share with its leader (`[groups]`)."""
        agree, n = width.copy(), width[group]
        total = np.cumsum(n)
        begin = 0
        while begin < len(rows):
            done = int(total[begin - 1]) if begin else 0
            stop = max(begin + 1, int(np.searchsorted(total, done + BLOCK, "right")))
            part = group[begin:stop]
            mine = self.first[rows[begin:stop]] + depth[part]
            theirs = self.first[leaders[part]] + depth[part]
            count = n[begin:stop]
            offset = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
            differ = self.tokens[np.repeat(mine, count) + offset] != self.tokens[np.repeat(theirs, count) + offset]
            np.minimum.at(agree, np.repeat(part, count)[differ], offset[differ])
            begin = stop
        return agree

    def split(self, groups: _RowGroups) -> _RowGroups:
        """End every group's node at its depth and sort its rows by their next token; returns the children that go on.

        Within the group's range of `order`, rows that end here come first, then one child after the other.
        """
        if not len(groups.node):
            return groups
        self.ended.append((groups.node, groups.depth))
        at, size = spans(groups.lo, groups.hi), groups.hi - groups.lo
        group = np.repeat(np.arange(len(size)), size)
        rows, depth = self.order[at], groups.depth[group]
        over = self.lengths[rows] == depth
        token = np.where(over, -1, self.tokens[np.where(over, 0, self.first[rows] + depth)])
        sort = np.lexsort((token, group))  # stable: rows stay in input order inside a child
        rows, token = rows[sort], token[sort]
        edge = np.flatnonzero(np.concatenate(([True], (token[1:] != token[:-1]) | (group[1:] != group[:-1]))))
        stop = np.append(edge[1:], len(rows))
        turn = np.lexsort((np.where(token[edge] < 0, -1, rows[edge]), group[edge]))
        edge, stop = edge[turn], stop[turn]
        self.order[at] = rows[spans(edge, stop)]
        return self._create(groups, group[edge], token[edge] < 0, at, stop - edge)

    def _create(self, groups: _RowGroups, group: Ints, over: NDArray[np.bool_], at: Ints, size: Ints) -> _RowGroups:
        """Make a node of every child; rows that are over end at the parent; a child of one row is done immediately."""
        lo = at[np.cumsum(size) - size]
        hi = lo + size
        self.leaf[self.order[spans(lo[over], hi[over])]] = np.repeat(groups.node[group[over]], size[over])
        lo, hi, group = lo[~over], hi[~over], group[~over]
        node, start = self.n_nodes + np.arange(len(lo)), groups.depth[group]
        self.n_nodes += len(lo)
        self.created.append((groups.node[group], start, lo, hi))
        alone = hi - lo == 1
        only = self.order[lo[alone]]
        self.leaf[only] = node[alone]
        self.ended.append((node[alone], self.lengths[only]))
        return _RowGroups(node, lo, hi, start + 1, np.full(len(lo), FIRST_WINDOW)).where(~alone)

    def finish(self) -> Forest:
        """Number the nodes depth first: by where their rows begin in `order`, a parent before its first child."""
        if not self.created:
            return Forest.empty()
        parent, start, lo, hi = (np.concatenate(parts) for parts in zip(*self.created, strict=True))
        end = np.empty(self.n_nodes, np.int64)
        for node, value in self.ended[1:]:  # the first entry is the root that is no node
            end[node] = value
        turn = np.lexsort((start, lo))
        number = np.empty(self.n_nodes + 1, np.int64)
        number[turn], number[-1] = np.arange(self.n_nodes), -1  # parent -1 finds the last entry
        lo, hi = lo[turn], hi[turn]
        return Forest(
            parent=number[parent[turn]],
            start=start[turn],
            end=end[turn],
            source=self.order[lo],
            subtree_end=np.searchsorted(lo, hi),
            rows_below=hi - lo,
            leaf=number[self.leaf],
            order=self.order,
        )


def sum_above(forest: Forest, values: Ints) -> Ints:
    """The sum of `values` (`[nodes]`) over the path of each node from the root, itself included."""
    # Node j lies above all nodes from itself to the end of its subtree: add there, take off behind.
    ended = np.bincount(forest.subtree_end, values, forest.n_nodes + 1)[: forest.n_nodes]
    return np.cumsum(values) - np.cumsum(ended).astype(np.int64)


def spans(lo: Ints, hi: Ints) -> Ints:
    """The whole numbers of the ranges `lo[i]:hi[i]`, one range after the other (no range may be empty)."""
    size = hi - lo
    return np.asarray(np.arange(int(size.sum())) + np.repeat(lo - (np.cumsum(size) - size), size))
