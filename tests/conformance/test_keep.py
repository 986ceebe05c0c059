"""Every keep rule of the catalogue: what it orders to go first goes first, what it retains stays, pages add up."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings

from tests.books import check_kv, holders
from tests.cache.test_lru import MOVES, PROMPTS, tree_of
from umbel import registry
from umbel.cache.keep import Keep, LeastRecent
from umbel.cache.pages import PagePool
from umbel.sched.policies.policy import Policy
from umbel.sched.scheduler import Scheduler

EACH = pytest.mark.parametrize("name", registry.names("keep"))


@dataclass
class Noting:
    """A rule, and the key that it gave each node last, by the node's place in depth-first order."""

    inner: Keep
    keys: dict[int, int] = field(default_factory=dict)

    @property
    def retains(self) -> bool:
        return self.inner.retains

    def key(self, label: int, moment: int) -> int:
        self.keys[label] = self.inner.key(label, moment)
        return self.keys[label]


@EACH
@settings(max_examples=60)
@given(PROMPTS, MOVES)
def test_the_lowest_keys_go_first_and_only_for_room(
    name: str, prompts: list[list[int]], moves: list[tuple[str, int]]
) -> None:
    rule = Noting(registry.load("keep", name))
    kv = tree_of(prompts, len(moves) + 1, PagePool(12, 1), rule)
    reading: list[list[int]] = []

    def key(node: int) -> int:
        return rule.keys[int(kv.labels.low[node])]

    for move, number in moves:
        path, before = kv.path(int(kv.leaf[number % len(prompts)])), holders(kv)
        if move == "read" and kv.pages_missing(path) <= kv.reclaimable(path):
            kv.pin(path)
            reading.append(path)
        elif move == "let go" and reading:
            kv.unpin(reading.pop(number % len(reading)), done=False)
            assert holders(kv) == before, "a node that is waited for was given up though nobody wanted its pages"
        elif move == "room":
            kv.make_room(number % 13)
            gone, idle = before - holders(kv), [node for node in holders(kv) if not kv.users[node]]
            assert not gone or kv.pool.free - sum(int(kv.length[node]) for node in gone) < number % 13
            assert not gone or not idle or max(map(key, gone)) <= min(map(key, idle))
            assert not any(gone & set(kv.path(node)) for node in idle), "the beginning of a path went before its end"
        check_kv(kv)


@EACH
def test_what_nobody_waits_for_stays_only_where_the_rule_retains_it(name: str) -> None:
    rule: Keep = registry.load("keep", name)
    kv = tree_of([[1, 2, 3], [1, 2, 4]], 1, PagePool(10, 1), rule)
    paths = [kv.path(int(leaf)) for leaf in kv.leaf]
    for path in paths:
        kv.pin(path)
        kv.unpin(path, done=True)
    assert holders(kv) == ({*paths[0], *paths[1]} if rule.retains else set())
    assert kv.make_room(10) and not holders(kv)
    check_kv(kv)


@EACH
def test_a_session_keeps_by_the_rule_that_was_asked_for(name: str) -> None:
    scheduler = Scheduler(PagePool(10, 1), 8, Policy(keep=name))
    scheduler.reuse()
    assert scheduler.kv.idle.keep == registry.load("keep", name)


def test_a_session_without_a_rule_keeps_all_until_its_pages_are_wanted() -> None:
    scheduler = Scheduler(PagePool(10, 1), 8)
    assert scheduler.kv.idle.keep == registry.load("keep", "last-reader")
    scheduler.reuse()
    assert scheduler.kv.idle.keep == LeastRecent(retains=True)
