"""A table of contexts beside a dictionary: finding, moving, growing and forgetting."""

from __future__ import annotations

import numpy as np

from umbel.spec.context_table import FULL, ContextTable, Words, keys_of


def places_in(table: ContextTable, keys: Words) -> dict[int, int]:
    """The keys that are there, with their places."""
    entries = table.find(keys)
    found = entries >= 0
    return dict(zip(keys[found].tolist(), table.place_of(entries[found]).tolist(), strict=True))


def test_a_table_is_a_dictionary(seed: int) -> None:
    draw, table, known = np.random.default_rng(seed), ContextTable(2), dict[int, int]()
    pool = np.unique(keys_of(draw.integers(0, 2**64, 4000, np.uint64)))
    for _ in range(60):
        keys = draw.choice(pool, 80)
        table.make_room(len(keys))
        places = draw.integers(0, 2**24, len(keys))
        before = table.find(keys)
        entries, first = table.find_or_insert(keys, places)
        assert (first <= (before < 0)).all()
        assert (first.sum(), entries[before >= 0].min(initial=0)) == (len(np.unique(keys[before < 0])), 0)
        known.update(zip(keys[first].tolist(), places[first].tolist(), strict=True))
        some = np.flatnonzero(entries >= 0)[::3]
        assert (table.place_of(entries[some]) == [known[key] for key in keys[some].tolist()]).all()
        table.move(entries[some], places[some])
        known.update(zip(keys[some].tolist(), places[some].tolist(), strict=True))
        assert places_in(table, pool).items() <= known.items()
    assert table.size <= FULL * table.words.size + 80
    assert np.count_nonzero(table.words) == table.size
    assert len(places_in(table, pool)) == table.size >= 0.95 * len(known)  # few were left out


def test_votes_move_with_their_entries(seed: int) -> None:
    draw, table = np.random.default_rng(seed), ContextTable(64)  # with room: a key whose buckets are full is left out
    keys = np.unique(keys_of(draw.integers(0, 2**64, 40, np.uint64)))
    entries, _ = table.find_or_insert(keys, np.arange(len(keys)))
    table.votes[entries] = np.arange(len(keys)) + 1
    table.make_room(100_000)
    again, first = table.find_or_insert(keys, np.zeros_like(entries))
    assert not first.any()
    assert (table.votes[again] == np.arange(len(keys)) + 1).all()
    assert np.count_nonzero(table.votes) == len(keys)


def test_places_before_a_point_are_forgotten() -> None:
    table, keys = ContextTable(64), keys_of(np.arange(1, 101, dtype=np.uint64) << np.uint64(40))
    table.find_or_insert(keys, np.arange(100))
    table.votes[:] = 9
    table.forget(40)
    assert places_in(table, keys) == {key: i - 40 for i, key in enumerate(keys.tolist()) if i >= 40}
    assert table.size == 60
