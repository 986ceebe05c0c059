"""Random lives of a KV tree that rows arrive in and samples fork, step back and end in, against plain lists of tokens.

Whatever was grafted, forked or split: each sample reads its own tokens back through the pages of its path, no page has
two owners, and users and samples to come are counted as a look at every path counts them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.books import check_kv
from umbel.cache.branches import fork, keep, split
from umbel.cache.graft import graft
from umbel.cache.keep import LastReader, LeastRecent
from umbel.cache.pages import PagePool
from umbel.cache.prefix import PrefixIndex
from umbel.cache.tree import KVTree
from umbel.ir.params import SamplingParams
from umbel.ir.workload import Workload
from umbel.plan.passes.prefix import build_forest

EXAMPLES = int(os.environ.get("UMBEL_MACHINE_EXAMPLES", "40"))
PAGES = 40

PROMPTS = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=9), min_size=1, max_size=4)
FEW = st.integers(0, 100)


@dataclass
class Sample:
    """A sample in the plain model: all its tokens, and how many of them its prompt has."""

    row: int
    tokens: list[int]
    prompt: int
    tip: int = -1
    running: bool = False
    slot: int = field(default=-1)


class TreeLife(RuleBasedStateMachine):
    """`memory` is what was written to each KV slot, a hash of all tokens up to there; the tree only says where."""

    @initialize(
        page=st.sampled_from((1, 2, 4)),
        rule=st.sampled_from((LastReader(), LeastRecent(True))),
        indexed=st.booleans(),
        spares=st.booleans(),
    )
    def begin(self, page: int, rule: LastReader | LeastRecent, indexed: bool, spares: bool) -> None:
        self.tree = KVTree(PagePool(PAGES, page), rule)
        if spares:
            self.tree.idle.follow(rule, spare=self.tree.waiting)
        if indexed:
            self.tree.index = PrefixIndex(self.tree)
        self.page = page
        self.memory = np.zeros(PAGES * page, np.int64)
        self.samples: list[Sample] = []  # started or waiting
        self.next_slot = 0

    # -- moves ---------------------------------------------------------------------------------------------------------

    @rule(prompts=PROMPTS, n=st.integers(1, 2), data=st.data())
    def arrive(self, prompts: list[list[int]], n: int, data: st.DataObject) -> None:
        """New rows; some of them go on from where a sample is, as the next turn of a talk does."""
        if self.samples:
            before = data.draw(st.sampled_from(self.samples)).tokens
            prompts = [*prompts, before[: data.draw(st.integers(1, len(before)))] + prompts[0]]
        workload, first = Workload.of(prompts, SamplingParams()), len(self.tree.leaf)
        graft(self.tree, workload, build_forest(workload), np.full(len(prompts), n))
        for row, prompt in enumerate(prompts):
            self.samples += [Sample(first + row, list(prompt), len(prompt)) for _ in range(n)]

    @precondition(lambda self: any(s.tip < 0 for s in self.samples))
    @rule(number=FEW)
    def start(self, number: int) -> None:
        """A sample that waits gets a tip and runs, if there are pages."""
        sample = self._one([s for s in self.samples if s.tip < 0], number)
        leaf = int(self.tree.leaf[sample.row])
        path = self.tree.path(leaf)
        if self.tree.pages_missing(path) <= self.tree.reclaimable(path):
            sample.slot, self.next_slot = self.next_slot, self.next_slot + 1
            sample.tip = self.tree.grow(leaf, sample.slot)
            self._resume(sample)

    @precondition(lambda self: any(s.running for s in self.samples))
    @rule(number=FEW, tokens=st.lists(st.integers(0, 1), min_size=1, max_size=5))
    def decode(self, number: int, tokens: list[int]) -> None:
        """Tokens are drawn; all but the last are computed, if there are pages for them."""
        sample = self._one([s for s in self.samples if s.running], number)
        sample.tokens += tokens
        self.tree.extend(np.array([sample.tip]), len(tokens))
        self._compute_tip(sample)

    @precondition(lambda self: any(s.running for s in self.samples))
    @rule(number=FEW, keep=FEW)
    def reject(self, number: int, keep: int) -> None:
        """The last tokens of a tip were drafts, and wrong."""
        sample = self._one([s for s in self.samples if s.running], number)
        length = keep % (int(self.tree.length[sample.tip]) + 1)
        self.tree.cut(np.array([sample.tip]), np.array([length]))
        del sample.tokens[int(self.tree.start[sample.tip]) + length :]
        assert self.tree.n_pages[sample.tip] == -(-self.tree.held[sample.tip] // self.page)

    @precondition(lambda self: any(s.running for s in self.samples))
    @rule(number=FEW, n=st.integers(1, 3))
    def fork(self, number: int, n: int) -> None:
        """One sample becomes several; nothing is computed and no page changes hands."""
        sample = self._one([s for s in self.samples if s.running], number)
        used, held = self.tree.pool.used, int(self.tree.held.sum())
        own = sample.tokens[int(self.tree.start[sample.tip]) :]
        others = [Sample(sample.row, list(sample.tokens), sample.prompt, running=True) for _ in range(n - 1)]
        for each in others:
            each.slot, self.next_slot = self.next_slot, self.next_slot + 1
        all_of = [sample, *others]
        tips = fork(self.tree, sample.tip, [s.slot for s in all_of], np.array(own, np.int32))
        for each, tip in zip(all_of, tips, strict=True):
            each.tip = tip
        self.samples += others
        assert (self.tree.pool.used, int(self.tree.held.sum())) == (used, held)

    @precondition(lambda self: any(s.running for s in self.samples))
    @rule(number=FEW)
    def step_back(self, number: int) -> None:
        sample = self._one([s for s in self.samples if s.running], number)
        self.tree.leave(sample.tip, done=False)
        sample.running = False

    @precondition(lambda self: any(s.tip >= 0 and not s.running for s in self.samples))
    @rule(number=FEW)
    def come_back(self, number: int) -> None:
        sample = self._one([s for s in self.samples if s.tip >= 0 and not s.running], number)
        path = self.tree.path(int(self.tree.parent[sample.tip]))
        if self.tree.pages_missing(path) <= self.tree.reclaimable(path):
            self._resume(sample)

    @precondition(lambda self: self.samples)
    @rule(number=FEW, kept=st.booleans())
    def end(self, number: int, kept: bool) -> None:
        self._end(self._one(self.samples, number), kept)

    @rule(number=FEW, at=FEW)
    def cut_in_two(self, number: int, at: int) -> None:
        """Any run, wherever a page does not have to be cut."""
        tree = self.tree
        nodes = np.flatnonzero((tree.labels.low >= 0) & (tree.slot < 0) & (tree.length > 1)).tolist()
        if nodes:
            node = nodes[number % len(nodes)]
            at = 1 + at % (int(tree.length[node]) - 1)
            at -= at % self.page if tree.n_pages[node] else 0
            if at:
                split(tree, node, at)

    @rule()
    def label_again(self) -> None:
        self.tree.labels.relabel()

    @rule(count=st.integers(0, PAGES))
    def make_room(self, count: int) -> None:
        self.tree.make_room(count)

    # -- what must hold ------------------------------------------------------------------------------------------------

    @invariant()
    def samples_read_their_own_tokens(self) -> None:
        if not hasattr(self, "tree"):
            return
        check_kv(self.tree)
        users, waiting = [0] * self.tree.n_nodes, [0] * self.tree.n_nodes
        for sample in self.samples:
            end = sample.tip if sample.tip >= 0 else int(self.tree.leaf[sample.row])
            path = self.tree.path(end)
            for node in path:
                users[node] += sample.running
                waiting[node] += 1
                self._check_node(node, sample)
            whole = int(self.tree.start[end] + self.tree.length[end])
            assert whole == (len(sample.tokens) if sample.tip >= 0 else sample.prompt)
        assert (self.tree.users, self.tree.waiting) == (users, waiting)

    def _check_node(self, node: int, sample: Sample) -> None:
        tree = self.tree
        start, length, held = (int(column[node]) for column in (tree.start, tree.length, tree.held))
        mine = sample.tokens[start : start + length]
        if tree.slot[node] < 0:
            assert tree.tokens.of(node, 0, length).tolist() == mine
        else:
            assert tree.slot[node] == sample.slot
        slots = [int(p) * self.page + i for p in tree.table.of(node) for i in range(self.page)][:held]
        assert self.memory[slots].tolist() == [hash(tuple(sample.tokens[: start + i + 1])) for i in range(held)]

    def teardown(self) -> None:
        """All end: everything can be had back, and no number is lost."""
        if not hasattr(self, "tree"):
            return
        for sample in list(self.samples):
            self._end(sample, kept=False)
        assert self.tree.make_room(PAGES)
        check_kv(self.tree)
        assert not (self.tree.labels.low >= 0).any() and len(self.tree._free) == self.tree.n_nodes
        assert not self.tree.tokens._texts and (self.tree.index is None or not self.tree.index._key)  # type: ignore[attr-defined]

    # -- the pages -----------------------------------------------------------------------------------------------------

    def _resume(self, sample: Sample) -> None:
        self.tree.enter(sample.tip)
        sample.running = True
        for node in self.tree.path(int(self.tree.parent[sample.tip])):
            lacking = int(self.tree.length[node] - self.tree.held[node])
            self._write(node, lacking, sample)
            self.tree.compute(np.array([node]), np.array([lacking]))
        self._compute_tip(sample)

    def _compute_tip(self, sample: Sample) -> None:
        tree, tip = self.tree, np.array([sample.tip])
        more = np.maximum(tree.length[tip] - tree.held[tip] - 1, 0)
        missing = tree.missing(tip, more)
        if more[0] and tree.make_room(int(missing[0])):
            tree.take(tip, missing)
            self._write(sample.tip, int(more[0]), sample)
            tree.compute(tip, more)

    def _write(self, node: int, count: int, sample: Sample) -> None:
        pages = self.tree.table.of(node)
        for i in range(int(self.tree.held[node]), int(self.tree.held[node]) + count):
            mark = hash(tuple(sample.tokens[: int(self.tree.start[node]) + i + 1]))
            self.memory[int(pages[i // self.page]) * self.page + i % self.page] = mark

    def _end(self, sample: Sample, kept: bool) -> None:
        tree = self.tree
        if sample.running and kept:
            keep(tree, sample.tip, np.array(sample.tokens[int(tree.start[sample.tip]) :], np.int32))
        elif sample.running:
            tree.leave(sample.tip, done=True)
        elif sample.tip >= 0:
            tree.abandon(sample.tip)
        else:
            tree.skip(tree.path(int(tree.leaf[sample.row])))
        self.samples.remove(sample)

    def _one(self, samples: list[Sample], number: int) -> Sample:
        return samples[number % len(samples)]


TestTreeLife = TreeLife.TestCase
TestTreeLife.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
