"""Writes tiny models with weights in 8 bits or in 4-bit floats by compressed-tensors' own compressors, and beside them
the same models as it decompresses them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme
from torch import Tensor

from tests.tiny_models import make_model

ENDS = ("_proj.weight", ".w1.weight", ".w2.weight", ".w3.weight")
MOST = {("int", 8): 127.0, ("int", 4): 7.0, ("float", 8): 448.0, ("float", 4): 6.0}
Parts = dict[str, Tensor]


def make_coded(directory: Path, form: str, args: dict[str, Any], seed: int = 0, **model: Any) -> tuple[Path, Path]:
    """A model of which all layers but the head are in a format with weights of such arguments, and its plain twin."""
    plain = make_model(directory / "plain", **model)
    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**args), format=form)
    compressor = BaseCompressor.get_value_from_registry(form)
    stored, decoded, generator = {}, {}, torch.Generator().manual_seed(seed)
    for name, tensor in safetensors.torch.load_file(plain / "model.safetensors").items():
        if not name.endswith(ENDS):
            stored[name] = decoded[name] = tensor
            continue
        parts = compressor.compress({"weight": tensor, **qparams(tensor, scheme.weights, generator)}, scheme)
        layer = name.removesuffix(".weight")
        stored |= {f"{layer}.{end}": part.contiguous() for end, part in parts.items() if part is not None}
        decoded[name] = compressor.decompress(parts, scheme)["weight"].float().contiguous()
    safetensors.torch.save_file(decoded, plain / "model.safetensors", metadata={"format": "pt"})
    whole = QuantizationConfig(config_groups={"group_0": scheme}, ignore=["lm_head"], format=form)
    coded = copy_with(plain, directory / "coded", stored, whole.model_dump(mode="json"))
    return coded, plain


def copy_with(source: Path, target: Path, tensors: Parts, config: dict[str, Any]) -> Path:
    """A model directory with other tensors and a `quantization_config`."""
    target.mkdir()
    for path in source.glob("*.json"):
        (target / path.name).write_bytes(path.read_bytes())
    own = json.loads((source / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(own | {"quantization_config": config}))
    safetensors.torch.save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target


def qparams(weight: Tensor, args: QuantizationArgs, generator: torch.Generator) -> Parts:
    """Scales of a matrix, and zero points where its numbers are not symmetric."""
    (outputs, inputs), most = weight.shape, MOST[str(args.type), args.num_bits]
    found: Parts = {}
    rows, columns = {
        "tensor": (outputs, inputs), "channel": (1, inputs), "group": (1, args.group_size),
        "tensor_group": (1, args.group_size), "block": args.block_structure,
    }[str(args.strategy)]  # fmt: skip
    shape = -(-outputs // rows), -(-inputs // columns)
    padded = torch.nn.functional.pad(weight, (0, shape[1] * columns - inputs, 0, shape[0] * rows - outputs))
    peaks = padded.view(shape[0], rows, shape[1], columns).abs().amax((1, 3))
    scale = peaks / most
    if args.strategy == "tensor":
        scale = scale.reshape(1)
    if str(args.scale_dtype) == "torch.uint8":
        scale = torch.exp2(scale.log2().ceil())
    if args.strategy == "tensor_group":
        found["weight_global_scale"] = (448.0 * 6.0 / weight.abs().max()).reshape(1)
        scale = (scale * found["weight_global_scale"]).to(torch.float8_e4m3fn).float()
    if not args.symmetric:
        found["weight_zero_point"] = torch.randint(-7, 8, scale.shape, generator=generator).to(torch.int8)
    return found | {"weight_scale": scale}
