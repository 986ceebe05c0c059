"""What users rely on by name: the public Python names, and the commands."""

from __future__ import annotations

import umbel
from umbel.cli.main import COMMANDS


def test_public_names() -> None:
    assert umbel.__all__ == [
        "LLM",
        "Chosen",
        "CompletionOutput",
        "LoRARequest",
        "PoolingParams",
        "RequestOutput",
        "SamplingParams",
        "Score",
        "StructuredOutputsParams",
        "map",
        "run",
    ]
    assert all(getattr(umbel, name) for name in umbel.__all__)


def test_commands() -> None:
    names = "run serve plan sim doctor report status export clean bench lab verify completion"
    assert list(COMMANDS) == names.split()
