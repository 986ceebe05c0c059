"""Tiny random soft prompts in PEFT's layout, written without PEFT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file


def write_soft_prompt(directory: Path, kind: str, shape: tuple[int, int], seed: int = 0, **config: Any) -> Path:
    """A soft prompt of a shape (positions, numbers of each). Gives `directory` back."""
    directory.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).standard_normal(shape, np.float32) / 2
    save_file({"prompt_embeddings": noise}, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    stated = {"peft_type": kind, "task_type": "CAUSAL_LM", "num_virtual_tokens": shape[0], "inference_mode": True}
    (directory / "adapter_config.json").write_text(json.dumps(stated | config))
    return directory
