"""The hand-made scheduling of llama.cpp, on a cache that checks what each sequence may see: waves, sharing, samples."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.bench.engines import ADAPTERS

VOCAB = 97


@pytest.fixture(scope="module")
def driver() -> Any:
    sys.path.insert(0, str(ADAPTERS))
    try:
        yield importlib.import_module("run_llama_cpp")
    finally:
        sys.path.remove(str(ADAPTERS))


def follower(tokens: list[int]) -> int:
    """The fake model: the next token depends on all before it and their places."""
    return sum((i + 1) * (token + 1) for i, token in enumerate(tokens)) % VOCAB


class Cache:
    """llama.cpp's memory as sequences of positions; a call on a sequence with a hole fails."""

    def __init__(self) -> None:
        self.sequences: dict[int, dict[int, int]] = {}
        self.computed = 0

    def llama_memory_clear(self, memory: Any, data: bool) -> None:
        self.sequences = {}

    def llama_memory_seq_rm(self, memory: Any, sequence: int, low: int, high: int) -> None:
        self.sequences.pop(sequence, None)

    def llama_memory_seq_cp(self, memory: Any, source: int, target: int, low: int, high: int) -> None:
        cells = self.sequences.get(source, {})
        wanted = range(max(low, 0), high) if high >= 0 else cells
        self.sequences.setdefault(target, {}).update({at: cells[at] for at in wanted})


def engine_of(driver: Any, sequences: int, cells: int, batch: int) -> Any:
    """The driver's engine over the fake cache."""
    engine = driver.LlamaCppEngine()
    engine.api, engine.memory, engine.np = Cache(), None, np
    engine.settings = {"sequences": sequences, "batch": batch}
    engine.cells, engine.vocab = cells, VOCAB
    engine.pick = lambda wanted: [int(logits.argmax()) for logits, _ in wanted]

    def decode(items: list[tuple[int, int, int, bool]]) -> Any:
        assert len(items) <= batch
        rows = []
        for token, position, sequence, wanted in items:
            held = engine.api.sequences.setdefault(sequence, {})
            held[position] = token
            engine.api.computed += 1
            if wanted:
                tokens = [held[i] for i in range(position + 1)]
                rows.append(np.eye(VOCAB)[follower(tokens)])
        used = {at for held in engine.api.sequences.values() for at in held.items()}
        assert used  # cells exist
        return np.array(rows) if rows else None

    engine.decode = decode
    return engine


def wanted(rows: list[dict[str, Any]]) -> list[list[list[int]]]:
    answers = []
    for row in rows:
        tokens = list(row["prompt"])
        for _ in range(row["max_tokens"]):
            tokens.append(follower(tokens))
        answers.append([tokens[len(row["prompt"]) :]] * row["n"])
    return answers


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "prompt": st.lists(st.integers(0, 2), min_size=1, max_size=7),
            "max_tokens": st.integers(1, 4),
            "n": st.integers(1, 3),
            "temperature": st.just(0.0),
        }
    ),
    min_size=1,
    max_size=9,
)


@given(rows=ROWS, sequences=st.integers(4, 12), cells=st.integers(20, 60), batch=st.integers(4, 16))
def test_answers_are_those_of_one_row_at_a_time(
    driver: Any, rows: list[dict[str, Any]], sequences: int, cells: int, batch: int
) -> None:
    batch = max(batch, sequences)  # all sequences decode in one call
    assert engine_of(driver, sequences, cells, batch).generate(rows) == wanted(rows)


def test_shared_beginnings_are_computed_once(driver: Any) -> None:
    rows = [{"prompt": [1] * 50 + [i], "max_tokens": 1, "n": 1, "temperature": 0.0} for i in range(10)]
    engine = engine_of(driver, 4, 1000, 64)  # three rows a wave
    assert engine.generate(rows) == wanted(rows)
    assert engine.api.computed == 50 + 10


def test_common_beginnings(driver: Any) -> None:
    assert driver.common([1, 2, 3], [1, 2, 4, 5]) == 2
    assert driver.common([], [1]) == 0
    assert driver.common([1, 2], [1, 2]) == 2


def test_the_reference_reacts_to_every_token() -> None:
    assert len({follower(list(t)) for t in [(0, 0, 1), (0, 1, 0), (1, 0, 0)]}) == 3
