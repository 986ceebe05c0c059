"""Files beside config.json in which older writers say how weights were quantised: contradictions are refused.

Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from umbel.errors import ModelError
from umbel.models.config_file import Config, read_json, shorten
from umbel.models.quant_keys import KEY

SAME = {key: key for key in ("bits", "group_size", "desc_act", "sym", "checkpoint_format", "zero_point", "version")}
FILES: Mapping[str, Mapping[str, str]] = {
    "quantize_config.json": SAME,
    "quant_config.json": SAME | {"w_bit": "bits", "q_group_size": "group_size"},
    "hf_quant_config.json": {},
}
"""Each file, with its keys that `quantization_config` has too, and what they are called there."""


def check_quant_files(directory: Path, config: Config) -> list[str]:
    """Notes on such files that are not read. Raises ModelError where one says something else than config.json."""
    stated, notes = config.get(KEY), []
    for name, keys in FILES.items():
        found = read_json(directory, name)
        if found is None:
            continue
        if not isinstance(stated, dict) or not keys:
            notes.append(f"{name} is not read: how weights are stored is taken from config.json and from their tensors")
            continue
        for key, own in keys.items():
            here, there = found.get(key), stated.get(own)
            if here is not None and there is not None and _plain(here) != _plain(there):
                raise ModelError(
                    f"{name} has {key}={shorten(here)}, config.json has {own}={shorten(there)}: which is true?"
                )
    return notes


def _plain(value: object) -> object:
    """A value of these files; names differ in their case only."""
    return value.lower() if isinstance(value, str) else value
