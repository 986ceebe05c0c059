"""Seeded workloads: shapes as documented, the same work for every seed, other content; files that come back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.bench.workloads import SHAPES, Row, generate, own_beginning, read_rows, write_rows
from umbel.errors import InputError

# name: rows, tokens of a prompt, tokens out, samples, distinct prefixes of (length)
DOCUMENTED = {
    "W1": (128, 544, 4, 1, {512: 4}),
    "W2": (32, 320, 64, 1, {256: 2}),
    "W4": (4, 256, 48, 16, {256: 4}),
    "W5": (64, 536, 16, 1, {128: 1, 512: 4}),
    "L1": (64, 4128, 64, 1, {4096: 1}),
    "L2": (64, 2112, 64, 1, {2048: 4}),
}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_shapes(name: str) -> None:
    count, length, out, n, prefixes = DOCUMENTED[name]
    rows = generate(name, 101, 50_000)
    assert len(rows) == count
    assert {(len(row.prompt), row.max_tokens, row.n) for row in rows} == {(length, out, n)}
    for at, distinct in prefixes.items():
        assert len({tuple(row.prompt[:at]) for row in rows}) == distinct
    assert len({tuple(row.prompt) for row in rows}) == count


def test_ragged_rows_share_nothing() -> None:
    rows = generate("W3", 101, 50_000)
    assert len({tuple(row.prompt[:4]) for row in rows}) == len(rows) == 64
    assert len({len(row.prompt) for row in rows}) > 30
    assert all(4 <= len(row.prompt) <= 768 and 1 <= row.max_tokens <= 128 for row in rows)


@given(st.sampled_from([name for name in SHAPES if name[0] == "W"]), st.integers(0, 9), st.integers(10, 10**6))
def test_seeds_change_content_and_nothing_else(name: str, seed: int, vocab: int) -> None:
    rows, others = generate(name, seed, vocab), generate(name, seed + 1, vocab)
    assert rows == generate(name, seed, vocab)
    assert [row.prompt for row in rows] != [row.prompt for row in others]
    shape = [(len(row.prompt), row.max_tokens, row.n, row.temperature) for row in rows]
    assert shape == [(len(row.prompt), row.max_tokens, row.n, row.temperature) for row in others]
    assert all(0 <= token < min(vocab, 32_000) for row in rows for token in row.prompt)


def test_own_beginnings_differ_by_seed_and_are_shared() -> None:
    rows = [Row([1, 2, 3], 4), Row([1, 5], 2, n=3, temperature=0.5)]
    first, second = (own_beginning(rows, "x", seed, 30_000) for seed in (1, 2))
    assert first[0].prompt[:8] == first[1].prompt[:8] != second[0].prompt[:8]
    assert [list(row.prompt[8:]) for row in first] == [[1, 2, 3], [1, 5]]
    assert (first[1].n, first[1].temperature, first[1].max_tokens) == (3, 0.5, 2)


def test_files_come_back(tmp_path: Path) -> None:
    rows = [Row([1, 2, 3], 4), Row([7], 1, n=2, temperature=1.0)]
    write_rows(tmp_path / "rows.jsonl", rows)
    assert read_rows(tmp_path / "rows.jsonl") == rows


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no rows"),
        ('{"prompt": [1], "max_tokens": 1}\n\n{"prompt": "words", "max_tokens": 1}', "line 3"),
        ('{"prompt": [1]}', "line 1"),
        ('{"prompt": [], "max_tokens": 1}', "line 1"),
        ('{"prompt": [1], "max_tokens": 0}', "line 1"),
        ("nonsense", "line 1"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match=said) as caught:
        read_rows(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="rows" + os.extsep + "jsonl"):
        read_rows(tmp_path / "rows.jsonl")
