"""Pages of KV that texts share: against sets of what each holds."""

from __future__ import annotations

import random

import numpy as np

from umbel.spec.shared_pages import SharedPages

SIZE = 4


def test_a_beginning_is_found_as_far_as_it_is_the_same() -> None:
    pages, text = SharedPages(8, SIZE), np.arange(14, dtype=np.int32)
    keys, held = pages.keys(text), pages.take(4)
    assert len(keys) == 3 and held is not None
    for page, key in zip(held, keys, strict=False):
        pages.name(page, key)
    other = text.copy()
    other[9] = 99
    assert pages.find(pages.keys(text)) == held[:3] and pages.find(pages.keys(other)) == held[:2]
    assert pages.find(pages.keys(text[1:])) == []


def test_pages_are_never_given_to_two_texts_unless_they_hold_the_same() -> None:
    """Random lives: what a text holds stays its own until it gives it back, and no page is lost."""
    rng, texts = random.Random(5), [np.array([i // 6, 7, i % 6, *range(20)], np.int32) for i in range(24)]
    pages, held = SharedPages(30, SIZE), dict[int, tuple[int, list[int]]]()
    for life in range(3000):
        if held and rng.random() < 0.5:
            pages.give(held.pop(rng.choice(list(held)))[1])
            continue
        which = rng.randrange(len(texts))
        keys = pages.keys(texts[which])
        found = pages.find(keys)
        more = pages.take(6 - len(found))
        if more is None:
            pages.give(found)
            continue
        for page, key in zip(found + more, keys, strict=False):
            pages.name(page, key)
        held[life] = which, found + more
        readers: dict[int, set[tuple[int, bytes]]] = {}
        for of, mine in held.values():
            for place, page in enumerate(mine):
                readers.setdefault(page, set()).add((place, texts[of][: SIZE * (place + 1)].tobytes()))
        assert all(len(contents) == 1 for contents in readers.values())
    for _, mine in held.values():
        pages.give(mine)
    assert pages.take(31) is None and sorted(pages.take(30) or ()) == list(range(30))
