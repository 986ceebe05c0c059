"""Philox against its published vectors; uniform numbers that depend on their own key and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.runner.random import philox, uniform

# Random123's kat_vectors, philox4x32-10: counter, key -> output.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN)
def test_known_answers(counter: str, key: str, output: str) -> None:
    got = philox(np.array(words(counter), np.uint64)[:, None], np.array(words(key), np.uint64)[:, None])
    assert got[:, 0].tolist() == words(output)


def test_known_answers_together() -> None:
    """Columns do not mix."""
    counters, keys, outputs = (np.array([words(v[i]) for v in KNOWN], np.uint64).T for i in range(3))
    assert philox(counters, keys).tolist() == outputs.tolist()


def draw(*key: int) -> float:
    return float(uniform(*(np.array([k], np.int64) for k in key))[0])


ANY_INT = st.integers(-(2**63), 2**63 - 1)
KEYS = st.tuples(ANY_INT, st.integers(0, 2**62), st.integers(0, 2**14), st.integers(0, 2**31 - 1))


@given(st.lists(KEYS, min_size=1, max_size=40))
def test_a_number_does_not_depend_on_the_batch(keys: list[tuple[int, int, int, int]]) -> None:
    columns = [np.array(column, np.int64) for column in zip(*keys, strict=True)]
    assert uniform(*columns).tolist() == [draw(*key) for key in keys]


@given(KEYS, st.integers(0, 3))
def test_every_part_of_the_key_counts(key: tuple[int, int, int, int], part: int) -> None:
    other = list(key)
    other[part] ^= 1
    assert draw(*key) != draw(*other)


def test_high_words_of_seed_and_row_count() -> None:
    assert len({draw(seed, row, 0, 0) for seed in (0, 1 << 32, -1) for row in (0, 1 << 40)}) == 6


@pytest.mark.parametrize("part", range(4))
def test_uniform_and_uncorrelated(part: int) -> None:
    """A million numbers that count up one part of the key: moments, buckets and neighbours as of a uniform law."""
    n = 1_000_000
    columns = [np.full(n, 7, np.int64) for _ in range(4)]
    columns[part] = np.arange(n)
    u = uniform(*columns)
    assert u.min() > 0 and u.max() < 1 and len(np.unique(u)) == n
    assert abs(u.mean() - 0.5) < 5 * (1 / 12 / n) ** 0.5
    counts = np.bincount((u * 1000).astype(int), minlength=1000)
    chi2 = float(((counts - n / 1000) ** 2 / (n / 1000)).sum())
    assert abs(chi2 - 999) < 4 * (2 * 999) ** 0.5
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 5 / n**0.5


def test_never_zero_or_one() -> None:
    """The extremes of the 53 bits stay inside (0, 1)."""
    bits = np.array([0, 2**53 - 1], np.float64)
    assert ((bits + 0.5) / 2.0**53 > 0).all()
    u = uniform(*(np.arange(1000) * k for k in (1, 3, 5, 7)))
    assert ((u > 0) & (u < 1)).all()
