"""Experts in MXFP4 are the floats that transformers makes of them; blocks and scales that do not fit are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.mixtures import MODELS, make_mixture
from tests.models.dense import dense_logits
from umbel.errors import ModelError
from umbel.models.decoder import Decoder
from umbel.models.families import read_spec
from umbel.models.sources.mxfp4 import decode_mxfp4
from umbel.models.weights import StoredWeights

DOWN = "model.layers.0.mlp.experts.down_proj"
STATED = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]}


def packed_model(directory: Path, change: Callable[[dict[str, Tensor]], object] = lambda tensors: None) -> Path:
    """A tiny gpt-oss whose experts are random numbers of 4 bits, as published ones are stored."""
    family, overrides = MODELS["gpt_oss"]
    make_mixture(directory, family, **(overrides | {"intermediate_size": 64}))
    tensors, generator = load_file(directory / "model.safetensors"), torch.Generator().manual_seed(0)
    for name in [name for name in tensors if "experts" in name and name.endswith("_proj")]:
        experts, inputs, outputs = tensors.pop(name).shape
        shape = (experts, outputs, inputs // 32)
        tensors[f"{name}_blocks"] = torch.randint(0, 256, (*shape, 16), dtype=torch.uint8, generator=generator)
        tensors[f"{name}_scales"] = torch.randint(121, 125, shape, dtype=torch.uint8, generator=generator)
    change(tensors)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((directory / "config.json").read_text()) | {"quantization_config": STATED}
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def test_numbers_are_those_of_transformers() -> None:
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    generator = torch.Generator().manual_seed(1)
    blocks = torch.randint(0, 256, (3, 70, 5, 16), dtype=torch.uint8, generator=generator)
    scales = torch.randint(1, 250, (3, 70, 5), dtype=torch.uint8, generator=generator)
    theirs = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
    for expert, wanted in enumerate(theirs):
        assert torch.equal(decode_mxfp4(blocks[expert], scales[expert]), wanted.t())


def test_logits(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, Mxfp4Config

    directory = packed_model(tmp_path)
    spec, how = read_spec(directory), Mxfp4Config(dequantize=True)
    assert [note for note in spec.notes if "MXFP4" in note]
    theirs = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, quantization_config=how).eval()
    ours = Decoder(spec, StoredWeights(directory, spec, torch.float32))
    prompt = torch.randint(300, (60,), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        wanted = theirs(prompt[None]).logits[0]
    assert (dense_logits(ours, prompt.tolist()) - wanted).abs().max() < 1e-4
    assert wanted.std() > 0.3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop(f"{DOWN}_scales"), f"{DOWN}_blocks has no {DOWN}_scales beside it"),
        (lambda tensors: tensors.update({f"{DOWN}_scales": torch.zeros(8, 64, 3, dtype=torch.uint8)}), "not MXFP4"),
        (lambda tensors: tensors.update({f"{DOWN}_scales": torch.zeros(8, 64, 2)}), "F32 are not MXFP4"),
        (lambda tensors: tensors.update({f"{DOWN}_scales": tensors[f"{DOWN}_scales"] * 0 + 255}), "infinite"),
        (
            lambda tensors: tensors.update({f"{DOWN}_blocks": torch.zeros(8, 64, 3, 16, dtype=torch.uint8),
                                            f"{DOWN}_scales": torch.zeros(8, 64, 3, dtype=torch.uint8)}),
            r"is \[8, 96, 64\], config.json makes it \[8, 64, 64\]",
        ),
    ],
    ids=["no scales", "other shape", "other type", "too large", "other model"],
)  # fmt: skip
def test_what_cannot_be(change: Callable[[dict[str, Tensor]], object], message: str, tmp_path: Path) -> None:
    directory = packed_model(tmp_path, change)
    spec = read_spec(directory)
    with pytest.raises(ModelError, match=message):
        dict(StoredWeights(directory, spec, torch.float32))


def test_keys_that_are_not_known_are_refused(tmp_path: Path) -> None:
    directory = packed_model(tmp_path)
    config = json.loads((directory / "config.json").read_text())
    config["quantization_config"] |= {"block_size": 16}
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="block_size"):
        read_spec(directory)
