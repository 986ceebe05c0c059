"""A model with scripted answers: the next token is a fixed function of the last one."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tests.tiny_models import make_model, random_tensors
from umbel.text.tokenizer import Tokenizer

HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 16}


def make_scripted(directory: Path, write: Callable[[Path], None], *scripts: Sequence[str]) -> Tokenizer:
    """A model directory with the tokenizer that `write` writes; of a script (vocabulary entries) each is followed by
    the next, the last one of the first script by itself. One-hot embeddings, and layers that add nothing."""
    directory.mkdir(parents=True, exist_ok=True)
    write(directory)
    tokenizer = Tokenizer.load(directory)
    width = tokenizer.vocab_size
    shape = {"vocab_size": width, "hidden_size": -(-width // 8) * 8, "num_hidden_layers": 1, **HEADS}
    kept = {name: (directory / name).read_text() for name in ("tokenizer.json", "tokenizer_config.json")}
    make_model(directory, **shape, eos_token_id=None)
    for name, text in kept.items():
        (directory / name).write_text(text)
    tensors = random_tensors(json.loads((directory / "config.json").read_text()), 0)
    for name, tensor in tensors.items():
        tensor[:] = 1.0 if name.endswith("norm.weight") else 0.0
    tensors["model.embed_tokens.weight"][np.arange(width), np.arange(width)] = 1.0
    pairs = [pair for script in scripts for pair in pairwise(script)] + [(scripts[0][-1], scripts[0][-1])]
    for pair in pairs:
        here, there = map(tokenizer.backend.token_to_id, pair)
        assert here is not None and there is not None, pair
        tensors["lm_head.weight"][there, here] = 1.0
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return tokenizer
