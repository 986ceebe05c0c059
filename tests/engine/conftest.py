"""One tiny random model for all tests of the engine."""

from __future__ import annotations

import pytest

from tests.tiny_models import make_model
from umbel.api import LLM


@pytest.fixture(scope="session")
def llm(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    directory = make_model(tmp_path_factory.mktemp("engine") / "llama", "llama", seed=3)
    return LLM(str(directory), dtype="float32", device="cpu", threads=1, chunk=64)
