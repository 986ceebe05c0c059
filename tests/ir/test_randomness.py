"""Philox and splitmix64 against published vectors; noise that depends on its own key and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.runner.draws import slow_noise
from umbel.errors import UsageError
from umbel.ir.randomness import key_of, noise_keys, philox, streams
from umbel.kernels.reference import exponentials

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


def word(*key: int) -> int:
    return int(noise_keys(*(np.array([k], np.int64) for k in key))[0])


ANY_INT = st.integers(-(2**63), 2**63 - 1)
DRAWS = st.tuples(ANY_INT, st.integers(0, 2**14), st.integers(0, 2**31 - 1))
ROWS = st.tuples(ANY_INT, ANY_INT, st.booleans())


@given(st.lists(DRAWS, min_size=1, max_size=40))
def test_a_word_does_not_depend_on_the_batch(keys: list[tuple[int, int, int]]) -> None:
    columns = [np.array(column, np.int64) for column in zip(*keys, strict=True)]
    assert noise_keys(*columns).tolist() == [word(*key) for key in keys]


@given(DRAWS, st.integers(0, 2))
def test_every_part_of_a_draw_counts(key: tuple[int, int, int], part: int) -> None:
    other = list(key)
    other[part] ^= 1
    assert word(*key) != word(*other)


def stream(seed: int, key: int, own: bool) -> int:
    return int(streams(np.array([seed]), np.array([key]), np.array([own]))[0])


@given(st.lists(ROWS, min_size=1, max_size=40))
def test_a_stream_does_not_depend_on_the_batch(rows: list[tuple[int, int, bool]]) -> None:
    seeds, keys, own = (np.array(column) for column in zip(*rows, strict=True))
    assert streams(seeds, keys, own).tolist() == [stream(*row) for row in rows]


@given(ANY_INT, ANY_INT, ANY_INT)
def test_what_a_stream_depends_on(seed: int, key: int, other: int) -> None:
    """A row with a seed of its own: on that alone. Any other: on the job's seed and the row's key."""
    assert stream(seed, key, True) == stream(seed, other, True) != stream(seed, key, False)
    assert (stream(seed, key, False) == stream(seed, other, False)) == (key == other)
    assert stream(seed, key, False) != stream(seed ^ 1, key, False)


def test_high_words_of_seed_and_row_count() -> None:
    assert len({stream(seed, row, False) for seed in (0, 1 << 32, -1) for row in (0, 1 << 40)}) == 6


def test_names_are_keys() -> None:
    assert key_of(7) == 7 and key_of(np.int32(-3)) == -3 and key_of("7") != 7
    assert len({key_of(name) for name in ("", "a", "b", "ä", "\ud800", "a" * 1000)}) == 6
    for wrong in (True, 1.0, None, 2**63, b"a"):
        with pytest.raises(UsageError, match="key"):
            key_of(wrong)  # type: ignore[arg-type]


def test_known_answers_of_splitmix() -> None:
    """The first numbers of the stream of seed 1234567, as its author's program prints them."""
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    wanted = [-np.log(((z >> 11) + 0.5) / 2**53) for z in known]
    got = exponentials(torch.tensor(1234567), torch.arange(4))
    assert got.tolist() == pytest.approx(wanted, rel=1e-15)
    assert [slow_noise(1234567, i) for i in range(4)] == pytest.approx(wanted, rel=1e-15)


@given(ANY_INT, st.integers(-(2**40), 2**40))
def test_noise_is_its_definition(key: int, counter: int) -> None:
    got = float(exponentials(torch.tensor(key), torch.tensor(counter)))
    assert got == pytest.approx(slow_noise(key, counter), rel=1e-14) and got > 0


@pytest.mark.parametrize("part", range(4))
def test_exponential_and_uncorrelated(part: int) -> None:
    """A million numbers that count up one part of the key, or the counter: moments, buckets and neighbours."""
    n = 1_000_000
    columns = [np.full(n, 7, np.int64) for _ in range(3)]
    counters = torch.full((n,), 11) if part < 3 else torch.arange(-n // 2, n // 2)
    if part < 3:
        columns[part] = np.arange(n)
    u = torch.exp(-exponentials(torch.from_numpy(noise_keys(*columns)), counters)).numpy()
    assert u.min() > 0 and u.max() < 1 and len(np.unique(u)) > n - 10
    assert abs(u.mean() - 0.5) < 5 * (1 / 12 / n) ** 0.5
    counts = np.bincount((u * 1000).astype(int), minlength=1000)
    chi2 = float(((counts - n / 1000) ** 2 / (n / 1000)).sum())
    assert abs(chi2 - 999) < 4 * (2 * 999) ** 0.5
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 5 / n**0.5
