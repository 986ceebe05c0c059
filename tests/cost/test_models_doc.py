"""docs/models.md is what the planner counts today, and its models have as many parameters as they are known for."""

from __future__ import annotations

import pytest

from tests.cost.models_doc import DOC, KNOWN, document, parameters, specs

PUBLISHED = {  # as their model cards and safetensors have them
    "Qwen/Qwen3-0.6B": 596e6,
    "Qwen/Qwen3-1.7B": 1.72e9,
    "Qwen/Qwen3-4B": 4.02e9,
    "Qwen/Qwen3-8B": 8.19e9,
    "Qwen/Qwen3-14B": 14.77e9,
    "Qwen/Qwen3-32B": 32.76e9,
    "Qwen/Qwen3-30B-A3B": 30.53e9,
    "Qwen/Qwen2.5-0.5B-Instruct": 494e6,
    "Qwen/Qwen2.5-1.5B-Instruct": 1.54e9,
    "Qwen/Qwen2.5-7B-Instruct": 7.62e9,
    "meta-llama/Llama-3.2-1B-Instruct": 1.236e9,
    "meta-llama/Llama-3.2-3B-Instruct": 3.21e9,
    "meta-llama/Llama-3.1-8B-Instruct": 8.03e9,
    "meta-llama/Llama-3.1-70B-Instruct": 70.55e9,
    "mistralai/Mistral-7B-Instruct-v0.3": 7.25e9,
    "mistralai/Mixtral-8x7B-Instruct-v0.1": 46.7e9,
    "HuggingFaceTB/SmolLM2-135M-Instruct": 134.5e6,
}


def test_the_page_is_current() -> None:
    assert DOC.read_text(encoding="utf-8") == document(), "write it again: python -m tests.cost.models_doc"


@pytest.mark.parametrize("name", KNOWN)
def test_a_model_has_as_many_parameters_as_it_is_known_for(name: str) -> None:
    assert parameters(specs()[name]) == pytest.approx(PUBLISHED[name], rel=0.005)
