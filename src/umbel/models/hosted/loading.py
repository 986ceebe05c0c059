"""The module of a checkpoint: tensors from safetensors only, handed to transformers, which names and merges them.

Nothing of the directory is executed or unpickled: transformers gets a config that was checked and tensors that were
read by us. What is missing, left over or of another shape is refused, where transformers would warn.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from umbel.errors import ModelError
from umbel.ir.spec import ModelSpec
from umbel.models.config_file import shorten
from umbel.models.hosted import attention, experts
from umbel.models.hosted.probe import use_own_experts
from umbel.models.parts import FLOATS
from umbel.models.sources.find import source_at

BUFFERS = re.compile(r".*\.(rotary_emb\.inv_freq|(attn|attention)\.(masked_)?bias)")
"""Angles and masks that old checkpoints carry along; they follow from the config."""


def load_module(
    directory: Path, spec: ModelSpec, model_class: type[PreTrainedModel], config: PreTrainedConfig, dtype: torch.dtype
) -> PreTrainedModel:
    """The module of the checkpoint in `directory`, on the CPU. Raises ModelError for files and tensors that are
    missing, unexpected, of another shape, or damaged."""
    stored = _stored(directory, spec, dtype)
    with _quiet():
        try:
            module, found = model_class.from_pretrained(
                None,
                config=config,
                state_dict=stored,
                dtype=dtype,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **_ours(),
            )
        except Exception as error:  # whatever converters of tensors raise
            raise ModelError(f"{directory}: {type(error).__name__}: {shorten(str(error))}") from error
    _check(directory, found)
    return _ready(module)


def make_module(
    model_class: type[PreTrainedModel], config: PreTrainedConfig, dtype: torch.dtype, seed: int
) -> PreTrainedModel:
    """A module with seeded random weights, as transformers begins to train it."""
    with _quiet(), torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return _ready(model_class._from_config(config, dtype=dtype, **_ours()))


def _ours() -> dict[str, Any]:
    attention.register()
    experts.register()
    return {"attn_implementation": attention.NAME}


def _ready(module: PreTrainedModel) -> PreTrainedModel:
    use_own_experts(module)
    return module.eval().requires_grad_(False)


def _stored(directory: Path, spec: ModelSpec, dtype: torch.dtype) -> dict[str, Tensor]:
    """Every tensor of the checkpoint, read."""
    tensors, found = source_at(directory).tensors(spec), {}
    for name, entry in tensors.entries.items():
        if BUFFERS.fullmatch(name):
            continue
        if entry.dtype not in FLOATS:
            raise ModelError(f"{directory}: tensor {name} is {entry.dtype}; only {', '.join(FLOATS)} can be read")
        found[name] = torch.empty(entry.shape, dtype=dtype)
        tensors.read_into(name, found[name])
    return found


def _check(directory: Path, found: dict[str, Any]) -> None:
    """Raise ModelError unless every tensor of the module was there, in its shape, and no other."""
    for kind, what in (("missing_keys", "missing"), ("unexpected_keys", "unexpected")):
        if found[kind]:
            raise ModelError(f"{directory}: {len(found[kind])} tensors {what}, first {shorten(min(found[kind]))}")
    if found["mismatched_keys"]:
        name, stored, made = min(found["mismatched_keys"])
        raise ModelError(f"{directory}: tensor {name} is {list(stored)}, config.json makes it {list(made)}")
    if found["error_msgs"]:
        raise ModelError(f"{directory}: {shorten(found['error_msgs'][0])}")


class _quiet:
    """Without what transformers prints while it loads: errors of ours say it."""

    def __enter__(self) -> None:
        self.before, self.bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity(logging.CRITICAL)
        logging.disable_progress_bar()
        self.warnings = warnings.catch_warnings()
        self.warnings.__enter__()
        warnings.simplefilter("ignore")

    def __exit__(self, *error: object) -> None:
        self.warnings.__exit__(*error)
        logging.set_verbosity(self.before)
        if self.bars:
            logging.enable_progress_bar()
