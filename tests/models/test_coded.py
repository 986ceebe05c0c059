"""Weights in 8 bits and 4-bit floats against the packages that write them, and against their definitions."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from tests.models.dense import dense_logits
from tests.models.test_decoder import random_prompts, reference_logits
from tests.tiny_models import make_model
from umbel.errors import ModelError
from umbel.models.decoder import Decoder
from umbel.models.families import read_spec
from umbel.models.weights import StoredWeights, load_weights

WIDE = {"hidden_size": 128, "intermediate_size": 192, "num_attention_heads": 4, "head_dim": 32}
FLOAT8 = {"num_bits": 8, "type": "float", "symmetric": True}
INT8 = {"num_bits": 8, "type": "int", "symmetric": True}
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "fp8 by tensors": ("float-quantized", FLOAT8 | {"strategy": "tensor"}),
    "fp8 by channels": ("float-quantized", FLOAT8 | {"strategy": "channel"}),
    "fp8 by groups": ("float-quantized", FLOAT8 | {"strategy": "group", "group_size": 32}),
    "fp8 by blocks": ("float-quantized", FLOAT8 | {"strategy": "block", "block_structure": [40, 48]}),
    "fp8 naively": ("naive-quantized", FLOAT8 | {"strategy": "channel"}),
    "int8 by tensors": ("int-quantized", INT8 | {"strategy": "tensor"}),
    "int8 by channels": ("int-quantized", INT8 | {"strategy": "channel"}),
    "int8 with zero points": ("int-quantized", INT8 | {"strategy": "channel", "symmetric": False}),
    "int8 by groups": ("int-quantized", INT8 | {"strategy": "group", "group_size": 32}),
    "packed int8": ("pack-quantized", INT8 | {"strategy": "channel"}),
    "packed int8 by groups": ("pack-quantized", INT8 | {"strategy": "group", "group_size": 32}),
    "packed int8 with zero points": (
        "pack-quantized", INT8 | {"strategy": "group", "group_size": 32, "symmetric": False}
    ),
    "nvfp4": (
        "nvfp4-pack-quantized",
        FLOAT8 | {"num_bits": 4, "strategy": "tensor_group", "group_size": 16, "scale_dtype": "torch.float8_e4m3fn"},
    ),
    "mxfp4": (
        "mxfp4-pack-quantized",
        FLOAT8 | {"num_bits": 4, "strategy": "group", "group_size": 32, "scale_dtype": "torch.uint8"},
    ),
    "mxfp8": ("mxfp8-quantized", FLOAT8 | {"strategy": "group", "group_size": 32, "scale_dtype": "torch.uint8"}),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_weights_are_what_compressed_tensors_decompresses(name: str, tmp_path: Path):
    pytest.importorskip("compressed_tensors", reason="compressed-tensors is not installed here")
    coded_models = import_module("tests.coded_models")
    coded, plain = coded_models.make_coded(tmp_path, *FORMS[name], **WIDE)
    spec = read_spec(coded)
    got, wanted = (load_weights(where, read_spec(where), torch.float32) for where in (coded, plain))
    assert got.keys() == wanted.keys()
    near = 2**-7 if name == "nvfp4" else 2**-22  # whose values and scales it multiplies in bfloat16
    for each in wanted:
        assert torch.allclose(got[each], wanted[each], rtol=near, atol=0), each
    assert any("are dequantised as they are loaded" in note for note in spec.notes)


@pytest.mark.parametrize("name", ["fp8 by blocks", "packed int8 with zero points", "mxfp4"])
@pytest.mark.parametrize("family", ["qwen3", "mixtral"])
def test_logits_equal_transformers(name: str, family: str, tmp_path: Path):
    pytest.importorskip("compressed_tensors", reason="compressed-tensors is not installed here")
    coded_models = import_module("tests.coded_models")
    coded, plain = coded_models.make_coded(tmp_path, *FORMS[name], family=family, **WIDE)
    spec, (prompt,) = read_spec(coded), random_prompts((60,))
    (expected,) = reference_logits(plain, [prompt])
    got = dense_logits(Decoder(spec, StoredWeights(coded, spec, torch.float32)), prompt)
    assert (got - expected).abs().max() <= 1e-4


def rewritten(directory: Path, config: dict[str, Any], code: Any, left: tuple[str, ...] = ()) -> tuple[Path, Path]:
    """A model whose products `code` stores as `(tensors by ending, the floats they stand for)`, and its plain twin."""
    plain, coded = make_model(directory / "plain", **WIDE), make_model(directory / "coded", **WIDE)
    stored, decoded = {}, {}
    for name, tensor in safetensors.torch.load_file(plain / "model.safetensors").items():
        if name.endswith("_proj.weight") and not name.endswith(left):
            parts, decoded[name] = code(tensor)
            stored |= {name.removesuffix("weight") + end: part for end, part in parts.items()}
        else:
            stored[name] = decoded[name] = tensor
    safetensors.torch.save_file(stored, coded / "model.safetensors")
    safetensors.torch.save_file(decoded, plain / "model.safetensors", metadata={"format": "pt"})
    own = json.loads((coded / "config.json").read_text())
    (coded / "config.json").write_text(json.dumps(own | {"quantization_config": config}))
    return coded, plain


def fp8_blocks(weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """By blocks of 128 rows and columns, a block at a time."""
    values, whole = torch.empty(weight.shape, dtype=torch.float8_e4m3fn), torch.empty(weight.shape)
    scales = torch.empty(-(-weight.shape[0] // 128), -(-weight.shape[1] // 128))
    for i in range(scales.shape[0]):
        for j in range(scales.shape[1]):
            at = slice(128 * i, 128 * (i + 1)), slice(128 * j, 128 * (j + 1))
            scales[i, j] = weight[at].abs().max() / 448
            values[at] = (weight[at] / scales[i, j]).to(torch.float8_e4m3fn)
            whole[at] = values[at].float() * scales[i, j]
    return {"weight": values, "weight_scale_inv": scales}, whole


def fp8_tensor(weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    scale = weight.abs().max() / 448
    values = (weight / scale).to(torch.float8_e4m3fn)
    parts = {"weight": values, "weight_scale": scale, "input_scale": torch.tensor(0.1), "k_scale": torch.tensor(1.0)}
    return parts, values.float() * scale


def gptq8(adds_one: bool, ordered: bool) -> Any:
    """GPTQ in 8 bits, number by number."""

    def code(weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        (outputs, inputs), rng = weight.shape, np.random.default_rng(1)
        groups = np.arange(inputs) // 64
        groups = rng.permutation(groups) if ordered else groups
        numbers, zeros = rng.integers(0, 256, (inputs, outputs)), rng.integers(1, 200, (inputs // 64, outputs))
        scales = rng.random((inputs // 64, outputs)).astype(np.float16) / 1024
        packed = np.zeros((inputs // 4, outputs), np.uint32)
        for i in range(inputs):
            packed[i // 4] |= numbers[i].astype(np.uint32) << np.uint32(8 * (i % 4))
        stored_zeros = np.zeros((inputs // 64, outputs // 4), np.uint32)
        for j in range(outputs):
            stored_zeros[:, j // 4] |= (zeros[:, j] - adds_one).astype(np.uint32) << np.uint32(8 * (j % 4))
        whole = (numbers - zeros[groups]) * scales.astype(np.float32)[groups]
        parts = {"qweight": packed.view(np.int32), "qzeros": stored_zeros.view(np.int32), "scales": scales}
        tensors = {end: torch.from_numpy(part) for end, part in parts.items()}
        return tensors | {"g_idx": torch.from_numpy(groups.astype(np.int32))}, torch.from_numpy(whole.T.copy()).float()

    return code


def packed4(weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """compressed-tensors in 4 bits with inputs assigned to groups in an order of their own, number by number."""
    (outputs, inputs), rng = weight.shape, np.random.default_rng(2)
    groups = rng.permutation(np.arange(inputs) // 32)
    numbers, scales = (
        rng.integers(-8, 8, (outputs, inputs)),
        rng.random((outputs, inputs // 32)).astype(np.float32) / 64,
    )
    packed = np.zeros((outputs, inputs // 8), np.uint32)
    for i in range(inputs):
        packed[:, i // 8] |= (numbers[:, i] + 8).astype(np.uint32) << np.uint32(4 * (i % 8))
    parts = {
        "weight_packed": packed.view(np.int32), "weight_scale": scales,
        "weight_g_idx": groups.astype(np.int32), "weight_shape": np.array([outputs, inputs]),
    }  # fmt: skip
    whole = numbers.astype(np.float32) * scales[:, groups]
    return {end: torch.from_numpy(part) for end, part in parts.items()}, torch.from_numpy(whole)


def nvfp4(weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """A float of 4 bits times the float of 8 bits of its group, by one of 32 bits, number by number."""
    (outputs, inputs), rng = weight.shape, np.random.default_rng(3)
    codes, floats = rng.integers(0, 16, (outputs, inputs)), (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
    scales = torch.from_numpy(rng.random((outputs, inputs // 16)).astype(np.float32) * 400).to(torch.float8_e4m3fn)
    values = np.array([*floats, *(-value for value in floats)], np.float32)[codes]
    packed = (codes[:, ::2] | codes[:, 1::2] << 4).astype(np.uint8)
    whole = torch.from_numpy(values) * (scales.float() / 9000.0).repeat_interleave(16, 1)
    parts = {"weight_packed": torch.from_numpy(packed), "weight_scale": scales}
    return parts | {"weight_global_scale": torch.tensor([9000.0])}, whole


def compressed(form: str, **weights: Any) -> dict[str, Any]:
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    return {"quant_method": "compressed-tensors", "format": form, "ignore": ["lm_head"], "config_groups": groups}


FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3"}
BLOCKS = FP8 | {"weight_block_size": [128, 128]}
GPTQ = {"quant_method": "gptq", "bits": 8, "group_size": 64, "sym": False}
OTHERS: dict[str, tuple[dict[str, Any], Any, tuple[str, ...]]] = {
    "DeepSeek's blocks": (BLOCKS | {"ignored_layers": ["lm_head"]}, fp8_blocks, ()),
    "blocks, some left": (BLOCKS, fp8_blocks, ("q_proj.weight", "down_proj.weight")),
    "AutoFP8's tensors": (FP8 | {"activation_scheme": "static", "ignored_layers": ["lm_head"]}, fp8_tensor, ()),
    "GPTQ": (GPTQ, gptq8(adds_one=True, ordered=False), ()),
    "GPTQ in an order": (GPTQ | {"desc_act": True}, gptq8(adds_one=True, ordered=True), ()),
    "compressed-tensors in an order": (
        compressed("pack-quantized", num_bits=4, strategy="group", group_size=32, actorder="group"), packed4, ()
    ),
    "NVFP4": (
        compressed("nvfp4-pack-quantized", num_bits=4, type="float", strategy="tensor_group", group_size=16), nvfp4, ()
    ),
    "GPTQ v2": (GPTQ | {"checkpoint_format": "gptq_v2"}, gptq8(adds_one=False, ordered=False), ()),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_weights_are_those_of_the_definition(name: str, tmp_path: Path):
    coded, plain = rewritten(tmp_path, *OTHERS[name])
    got, wanted = (load_weights(where, read_spec(where), torch.float32) for where in (coded, plain))
    assert got.keys() == wanted.keys()
    assert all(torch.equal(got[each], wanted[each]) for each in wanted)


def test_bfloat16_is_rounded_once(tmp_path: Path):
    coded, plain = rewritten(tmp_path, *OTHERS["DeepSeek's blocks"])
    got, wanted = (load_weights(where, read_spec(where), torch.bfloat16) for where in (coded, plain))
    assert all(torch.equal(got[each], wanted[each]) for each in wanted)


def test_transformers_dequantises_the_same(tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate", reason="transformers reads such weights with accelerate only")
    coded, _ = rewritten(tmp_path, *OTHERS["DeepSeek's blocks"])
    theirs = transformers.AutoModelForCausalLM.from_pretrained(coded, dtype=torch.float32).state_dict()
    ours = load_weights(coded, read_spec(coded), torch.float32)
    # Of `down`, whose last block is smaller, it takes all blocks to be of one size; DeepSeek's own kernel does not.
    assert torch.equal(ours["layers.1.o"], theirs["model.layers.1.self_attn.o_proj.weight"])


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (BLOCKS, "activations are not rounded"),
        (BLOCKS | {"kv_cache_scheme": {"num_bits": 8}}, "activations and KV are not rounded"),
        (GPTQ, ""),
    ],
)  # fmt: skip
def test_notes_say_what_is_not_rounded(config: dict[str, Any], said: str, tmp_path: Path):
    code = OTHERS["GPTQ"][1] if config is GPTQ else fp8_blocks
    notes = read_spec(rewritten(tmp_path, config, code)[0]).notes
    assert any(said in note for note in notes) if said else not any("rounded" in note for note in notes)


def group(**changes: Any) -> dict[str, Any]:
    own = {key: changes.pop(key) for key in ("targets", "output_activations", "format") if key in changes}
    weights = {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True} | changes
    groups = {"group_0": {"targets": ["Linear"], "weights": weights} | own}
    return {"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": groups}


UNREADABLE: dict[str, tuple[dict[str, Any], str]] = {
    "another float": (FP8 | {"fmt": "e5m2"}, r"fmt='e5m2': only \"e4m3\""),
    "a key that is not known": (FP8 | {"layer_scales": 2}, "'layer_scales'=2: this key is not known"),
    "another scheme": (FP8 | {"activation_scheme": "none"}, "activation_scheme='none': must be dynamic or static"),
    "a block of one size": (FP8 | {"weight_block_size": [128]}, "weight_block_size=.*two whole numbers"),
    "blocks of nothing": (FP8 | {"weight_block_size": [0, 128]}, "weight_block_size=.*two whole numbers"),
    "names that are none": (FP8 | {"modules_to_not_convert": 3}, "modules_to_not_convert=3: must be a list"),
    "bits": (group(num_bits=5), "num_bits=5 of type='float': weights of float-quantized must be FP8"),
    "dynamic weights": (group(dynamic=True), "dynamic=True: only false"),
    "outputs": (group(output_activations={"num_bits": 8}), "output_activations"),
    "targets": (group(targets="Linear"), "targets='Linear': must be a list of names"),
    "a format of a group": (group(format="marlin-24"), "format='marlin-24': must be one of"),
    "a strategy": (group(strategy="token"), "strategy='token': must be one of"),
    "no weights": (group() | {"config_groups": {"group_0": {"targets": ["Linear"]}}}, "weights=None: must be an obj"),
    "sparsity": (group() | {"sparsity_config": {"format": "dense"}}, "'sparsity_config'=.*this key is not known"),
    "a transform": (group() | {"transform_config": {"config_groups": {"a": 1}}}, "'transform_config'=.*not known"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNREADABLE)
def test_configs_that_are_not_understood_are_refused(name: str, tmp_path: Path):
    config, message = UNREADABLE[name]
    directory = make_model(tmp_path)
    own = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(own | {"quantization_config": config}))
    with pytest.raises(ModelError, match=message):
        read_spec(directory)


def tensors_of(directory: Path, change: Any) -> None:
    tensors = safetensors.torch.load_file(directory / "model.safetensors")
    change(tensors)
    safetensors.torch.save_file(tensors, directory / "model.safetensors")


Q = "model.layers.0.self_attn.q_proj"
DAMAGED: dict[str, tuple[str, Any, str]] = {
    "no scale": (
        "DeepSeek's blocks",
        lambda t: t.pop(f"{Q}.weight_scale_inv"),
        r"q_proj.weight is F8_E4M3, and has no",
    ),
    "scales of another shape": (
        "DeepSeek's blocks",
        lambda t: t.update({f"{Q}.weight_scale_inv": torch.ones(5, 7)}),
        r"q_proj.weight: has scales of \[5, 7\] for a weight of",
    ),
    "not a number": (
        "DeepSeek's blocks",
        lambda t: t[f"{Q}.weight"].view(torch.uint8).fill_(0x7F),
        r"q_proj.weight has values that are NaN or infinite",
    ),
    "an infinite scale": (
        "AutoFP8's tensors",
        lambda t: t.update({f"{Q}.weight_scale": torch.tensor(float("inf"))}),
        "NaN or infinite",
    ),
    "no zero points": ("GPTQ", lambda t: t.pop(f"{Q}.qzeros"), "q_proj.weight: has no qzeros"),
    "groups beyond": ("GPTQ", lambda t: t[f"{Q}.g_idx"].fill_(9), "groups of inputs that are not 0 to 1"),
    "a zero point of 255": ("GPTQ", lambda t: t[f"{Q}.qzeros"].fill_(-1), "zero point of 255"),
    "another weight": (
        "DeepSeek's blocks",
        lambda t: t.update({f"{Q}.weight": t[f"{Q}.weight"][:64].clone()}),
        r"q_proj.weight is \[64, 128\], config.json makes it",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_tensors_that_do_not_fit_are_named(name: str, tmp_path: Path):
    form, change, message = DAMAGED[name]
    coded, _ = rewritten(tmp_path, *OTHERS[form])
    tensors_of(coded, change)
    with pytest.raises(ModelError, match=message):
        load_weights(coded, read_spec(coded), torch.float32)
