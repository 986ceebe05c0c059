"""Which run a document is computed in, where several rows wait for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from umbel.sched.agenda import Agenda
from umbel.sched.phases.documents import PlaceDocuments


class NoCopies:
    """Copies that keep nothing, and note what they are given."""

    def __init__(self) -> None:
        self.kept: list[int] = []

    def __contains__(self, key: object) -> bool:
        return False

    def keep(self, key: object, slots: object, position: int) -> None:
        """Note where it was computed."""
        self.kept.append(position)


def two_runs() -> tuple[PlaceDocuments, Any]:
    """A phase over two runs of 10 tokens with the same document, at positions 4 and 30, both of rows that run."""
    tokens = SimpleNamespace(document=np.ones(2, np.int64), of=lambda node, first, count: np.arange(count))
    columns = {"length": np.full(2, 10), "held": np.zeros(2, np.int64), "start": np.array([4, 30]), "users": [1, 1]}
    table = SimpleNamespace(of=lambda node: np.array([node]))
    pool = SimpleNamespace(page_size=16)
    kv = SimpleNamespace(tokens=tokens, scope=np.zeros(2, np.int64), table=table, pool=pool, **columns)
    return PlaceDocuments(SimpleNamespace(kv=kv), NoCopies()), kv  # type: ignore[arg-type]


def asked(phase: PlaceDocuments, node: int, budget: int = 8) -> dict[int, int]:
    """What a step is to compute for a row whose path has this run."""
    agenda = Agenda(budget)
    assert not phase.is_ready(agenda, [node])
    return agenda.counts


def test_one_row_computes_and_others_wait_for_it() -> None:
    phase, kv = two_runs()
    assert asked(phase, 0) == {0: 8} and asked(phase, 1) == {}
    kv.held[0] = 8
    assert asked(phase, 0) == {0: 2}


def test_where_that_row_steps_back_the_next_one_computes_in_the_same_step() -> None:
    """Else nothing might be left to do in it, and a row would be given up for want of room."""
    phase, kv = two_runs()
    assert asked(phase, 0) == {0: 8}
    kv.users[0] = 0
    assert asked(phase, 1) == {1: 8}


def test_what_is_whole_is_kept_once_wherever_it_was_computed() -> None:
    """Also when no row reads it any more; one that was given up is not."""
    phase, kv = two_runs()
    asked(phase, 1)
    kv.held[1], kv.users[1] = 10, 0
    for _ in range(2):
        phase.fill(Agenda(8), phase.books)
    assert phase.copies.kept == [30]  # type: ignore[attr-defined]
    kv.held[1] = 0
    asked(phase, 0)
    kv.held[0], kv.users[0] = 0, 0
    phase.fill(Agenda(8), phase.books)
    assert phase.copies.kept == [30]  # type: ignore[attr-defined]
