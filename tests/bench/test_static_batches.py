"""Padded batches of transformers: no more rows than asked for or than the memory holds, every sample answered once."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest

from umbel.bench.engines import ADAPTERS


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ADAPTERS))
    monkeypatch.delitem(sys.modules, "wire", raising=False)
    found = importlib.import_module("run_transformers").TransformersEngine()
    found.settings = {"batch": 3, "cells": 40}
    found.sizes = []

    def batch(rows: list[dict[str, Any]]) -> list[list[int]]:
        found.sizes.append((len(rows), max(len(row["prompt"]) + row["max_tokens"] for row in rows)))
        longest = max(row["max_tokens"] for row in rows)
        return [[sum(row["prompt"])] * longest for row in rows]

    found.batch = batch
    return found


def test_batches_fit_and_answers_come_back(engine: Any) -> None:
    rows = [{"prompt": [i] * (1 + 3 * i), "max_tokens": 1 + i % 3, "n": 1 + i % 2} for i in range(9)]
    answers = engine.static(rows)
    assert answers == [[[sum(row["prompt"])] * row["max_tokens"]] * row["n"] for row in rows]
    assert all(count <= 3 and (count == 1 or count * width <= 40) for count, width in engine.sizes)
    assert max(count for count, _ in engine.sizes) == 3 and min(count for count, _ in engine.sizes) == 1
