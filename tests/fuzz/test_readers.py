"""Hostile inputs for every reader, a few of each; `python -m tools.fuzz` tries many."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz.readers import READERS


@pytest.mark.parametrize("name", READERS)
def test_hostile_inputs(name: str) -> None:
    inputs, check = READERS[name]
    n_examples = 8 if name == "chat_templates" else 25  # each of those is a process or more
    settings(max_examples=n_examples, suppress_health_check=HealthCheck)(given(inputs)(check))()
