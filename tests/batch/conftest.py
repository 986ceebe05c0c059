"""A tiny model, and an engine that stands in for it."""

from __future__ import annotations

import pytest

from tests.jobs.fakes import FakeEngine
from tests.tiny_models import make_model
from umbel.batch import loading


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_model(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """Stands in for the model; `seen` tells what it was asked."""
    fake = FakeEngine()
    monkeypatch.setattr(loading, "_load", lambda *given: fake)
    return fake
