"""Tiny random adapters in PEFT's layout, written without PEFT, in milliseconds."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
PREFIX = "base_model.model."


def write_adapter(
    directory: Path,
    base: Path,
    modules: Sequence[str] = ATTENTION + MLP,
    rank: int = 4,
    seed: int = 0,
    ranks: Mapping[str, int] | None = None,
    layers: Sequence[int] | None = None,
    **config: Any,
) -> Path:
    """An adapter of some modules of the model in `base`, whose products are as large as those of the model; `ranks` are
    those of modules that have another one. Gives `directory` back."""
    directory.mkdir(parents=True, exist_ok=True)
    rng, ranks = np.random.default_rng(seed), dict(ranks or {})
    tensors = {}
    for name, (outputs, inputs) in weights_of(base).items():
        module, layer = name.split(".")[-1], int(re.findall(r"\d+", name)[0])
        if module not in modules or (layers is not None and layer not in layers):
            continue
        r = ranks.get(module, rank)
        for half, shape in (("A", (r, inputs)), ("B", (outputs, r))):
            noise = rng.standard_normal(shape, np.float32)
            tensors[f"{PREFIX}{name}.lora_{half}.weight"] = noise * np.float32(shape[1] ** -0.5)
    save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    own = {"layers_to_transform": list(layers)} if layers is not None else {}
    stated = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 2 * rank, "rank_pattern": ranks,
        "target_modules": list(modules), "bias": "none", "base_model_name_or_path": str(base), "inference_mode": True,
    }  # fmt: skip
    (directory / "adapter_config.json").write_text(json.dumps(stated | own | config))
    return directory


def weights_of(base: Path) -> dict[str, tuple[int, ...]]:
    """The matrices of a model's layers by the names of their modules, with their shapes."""
    with safe_open(base / "model.safetensors", "np") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    return {n.removesuffix(".weight"): s for n, s in shapes.items() if ".layers." in n and len(s) == 2}
