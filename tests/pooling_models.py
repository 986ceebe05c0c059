"""Tiny models that give vectors, saved as transformers and sentence-transformers do, and what they should give."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, MODEL_MAPPING, PreTrainedModel

from tests.tiny_models import write_tokenizer
from tests.tiny_types import save_tiny, tiny_config, tiny_module

SHARED = list(range(20, 75))
PROMPTS = [[*SHARED, 5, 6], [*SHARED, 5, 7, 8], SHARED[:31], [9], [*SHARED, 5, 6], [*SHARED[:40], *range(100, 140)]]


def make_base(directory: Path, kind: str, seed: int = 0, **config: Any) -> Path:
    """A checkpoint without a head, as AutoModel saves it."""
    made = tiny_config(kind, **config)
    save_tiny(directory, tiny_module(MODEL_MAPPING[type(made)], made, seed))
    write_tokenizer(directory)
    return directory


def make_classifier(directory: Path, kind: str, seed: int = 0, **config: Any) -> Path:
    """A checkpoint with a head for classes."""
    made = tiny_config(kind, **config)
    save_tiny(directory, tiny_module(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(made)], made, seed))
    write_tokenizer(directory)
    return directory


def with_modules(
    directory: Path, mode: str = "lasttoken", *, normalize: bool = True, more: Sequence[str] = (), **pooling: Any
) -> Path:
    """The files of sentence-transformers beside a checkpoint."""
    kinds = ["Transformer", "Pooling", *more, *(["Normalize"] if normalize else [])]
    paths = ["" if kind == "Transformer" else f"{i}_{kind}" for i, kind in enumerate(kinds)]
    parts = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ]
    (directory / "modules.json").write_text(json.dumps(parts))
    (directory / "1_Pooling").mkdir(exist_ok=True)
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    flags: Mapping[str, Any] = {f"pooling_mode_{name}": name == mode for name in modes}
    stated = {"word_embedding_dimension": 64, **flags, "include_prompt": True, **pooling}
    (directory / "1_Pooling" / "config.json").write_text(json.dumps(stated))
    return directory


def loaded(directory: Path, kind: type[Any]) -> PreTrainedModel:
    """The model as transformers loads it, in float32."""
    found: PreTrainedModel = kind.from_pretrained(directory, dtype=torch.float32).eval()
    return found


@torch.inference_mode()
def states(model: PreTrainedModel, ids: Sequence[int]) -> Tensor:
    """Last hidden states of a prompt alone (`[tokens, hidden]`)."""
    found: Tensor = model(torch.tensor([list(ids)]), use_cache=False).last_hidden_state[0]
    return found


def unit(vector: Tensor) -> Tensor:
    """A vector of length 1."""
    return torch.nn.functional.normalize(vector, dim=-1)
