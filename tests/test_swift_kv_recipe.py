"""The recipe that trains what SwiftKV needs of a model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.runner.naive_flow import NaiveDecoder
from tests.tiny_models import make_model

PAIRS = [([(i * 31 + j * 7) % 290 + 3 for j in range(30)], [5 + i, 6, 7, 8]) for i in range(4)]


@pytest.mark.slow
def test_projections_begin_as_the_model_s_own_and_come_nearer_to_it(tmp_path: Path) -> None:
    """A naive decoder agrees before training and after it, with what was written; the model itself stays."""
    pytest.importorskip("transformers", reason="transformers is not installed here")
    from tools.swift_kv import Student, divergence, load_teacher, save, train

    source = make_model(tmp_path / "model", "qwen3", num_hidden_layers=4)
    student = Student(load_teacher(source), 2)
    ids = PAIRS[0][0]
    with torch.no_grad():
        mine, theirs = student.logits(torch.tensor(ids))
        torch.testing.assert_close(mine[-1], NaiveDecoder(source, 2).logits(ids), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(theirs[-1], NaiveDecoder(source).logits(ids), rtol=1e-4, atol=1e-4)
        before = sum(divergence(student, *pair).item() for pair in PAIRS)
    train(student, PAIRS, seconds=2, rate=1e-3, seed=0)
    save(student, source, tmp_path / "out")
    with torch.no_grad():
        assert sum(divergence(student, *pair).item() for pair in PAIRS) < 0.7 * before
        mine, _ = student.logits(torch.tensor(ids))
        torch.testing.assert_close(mine[-1], NaiveDecoder(tmp_path / "out", 2).logits(ids), rtol=1e-4, atol=1e-4)
