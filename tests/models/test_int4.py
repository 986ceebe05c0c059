"""Models in 4 bits, of every format: their weights number by number, their tokens by transformers on the weights that
they stand for, and what must be refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from tests.int4_models import Kind, make_pair, set_config, statement
from tests.oracle.hf import agreement, greedy, prompts_around_borders
from tests.tiny_models import VOCAB_SIZE
from umbel import LLM, SamplingParams
from umbel.errors import ModelError, UsageError
from umbel.kernels.int4 import Int4Weight
from umbel.models.families import read_spec
from umbel.models.shards import Shard, ShardedWeights, shard_spec
from umbel.models.weights import StoredWeights, dummy_weights, load_weights

KINDS = {
    "gptq symmetric": Kind("gptq", 16, symmetric=True, family="qwen3"),
    "gptq": Kind("gptq", 32, family="qwen2"),
    "gptq, all inputs": Kind("gptq", -1),
    "gptq, a group cut short": Kind("gptq", 128, family="mistral"),
    "gptq, activation order": Kind("gptq", 16, act_order=True, family="qwen2"),
    "gptq, some layers": Kind("gptq", 16, plain=("down_proj",)),
    "gptq_v2": Kind("gptq_v2", 16),
    "awq": Kind("awq", 16, family="qwen2"),
    "awq, all inputs, some layers": Kind("awq", -1, plain=("layers.1.self_attn", "down_proj")),
    "compressed": Kind("compressed-tensors", 16, symmetric=True, family="qwen3"),
    "compressed with zeros": Kind("compressed-tensors", 32, family="qwen2"),
    "compressed by output": Kind("compressed-tensors", -1, symmetric=True, plain=("layers.0.mlp",)),
    "compressed by output with zeros": Kind("compressed-tensors", -1),
}
Q_PROJ = "model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Kind, Path, Path]:
    kind = KINDS[request.param]
    return kind, *make_pair(tmp_path_factory.mktemp("pair"), kind)


def test_weights_are_those_of_the_format(pair: tuple[Kind, Path, Path]) -> None:
    kind, packed, plain = pair
    spec, own = read_spec(packed), read_spec(plain)
    assert spec == replace(own, quantization=spec.quantization) and own.quantization is None
    got, wanted = (load_weights(d, s, torch.float32) for d, s in ((packed, spec), (plain, own)))
    assert got.keys() == wanted.keys()
    n_packed = 0
    for name, weight in got.items():
        floats = weight
        if isinstance(weight, Int4Weight):
            n_packed += 1
            assert weight.shape == wanted[name].shape and weight.scales.dtype == torch.float16
            floats = weight.floats(torch.float32)
        assert torch.equal(floats, wanted[name]), name
    assert n_packed == (0 if kind.act_order else 8 - len(spec.quantization.plain))


def test_tokens_are_those_of_transformers(pair: tuple[Kind, Path, Path]) -> None:
    _, packed, plain = pair
    prompts = prompts_around_borders(5, 8, VOCAB_SIZE, 40)
    llm = LLM(str(packed), dtype="float32", device="cpu", threads=1)
    params = SamplingParams(max_tokens=12, temperature=0.0)
    told = [output.outputs[0].token_ids for output in llm.generate(prompts, params)]
    found = [agreement(mine, theirs) for mine, theirs in zip(told, greedy(plain, prompts, 12), strict=True)]
    assert set(found) <= {"same", "excused"} and found.count("same") >= 6, found


def test_in_bfloat16_weights_are_rounded_once(pair: tuple[Kind, Path, Path]) -> None:
    _, packed, plain = pair
    got, wanted = (load_weights(d, read_spec(d), torch.bfloat16) for d in (packed, plain))
    for name, weight in got.items():
        floats = weight.floats(torch.bfloat16) if isinstance(weight, Int4Weight) else weight
        assert torch.equal(floats, wanted[name]), name


@pytest.mark.parametrize("kind", [Kind("gptq", 16), Kind("awq", 8), Kind("compressed-tensors", 2)], ids=str)
def test_shards_are_those_of_the_floats(tmp_path: Path, kind: Kind) -> None:
    packed, plain = make_pair(tmp_path, replace(kind, overrides={"intermediate_size": 192}))
    for rank in range(2):
        shards = []
        for directory in (packed, plain):
            spec = read_spec(directory)
            shard_spec(spec, 2)
            shards.append(ShardedWeights(StoredWeights(directory, spec, torch.float32), spec, Shard(rank, 2)))
        for name in shards[0]:
            got, wanted = (shard[name] for shard in shards)
            assert torch.equal(got.floats(torch.float32) if isinstance(got, Int4Weight) else got, wanted), name


def test_groups_are_not_cut(tmp_path: Path) -> None:
    for group in (64, -1):
        with pytest.raises(UsageError, match=r"inside groups of 64"):
            shard_spec(read_spec(make_pair(tmp_path / str(group), Kind("awq", group))[0]), 2)


def test_random_weights_are_packed_too(tmp_path: Path) -> None:
    kind = Kind("awq", 16, plain=("down_proj",))
    spec = read_spec(make_pair(tmp_path, kind)[0])
    packed = {name for name, weight in dummy_weights(spec, torch.float32).items() if isinstance(weight, Int4Weight)}
    assert packed == {f"layers.{layer}.{product}" for layer in (0, 1) for product in ("qkv", "o", "gate_up")}


def test_a_loss_of_the_author_need_not_be_allowed_but_another_is_refused(tmp_path: Path) -> None:
    directory = make_pair(tmp_path, Kind("awq", 16))[0]
    for linear in ("int8", "fp8"):
        with pytest.raises(UsageError, match="int4 already"):
            LLM(str(directory), device="cpu", linear=linear, allow_lossy=True)


def test_old_writers_add_biases_of_zeros(tmp_path: Path) -> None:
    packed, _ = make_pair(tmp_path, Kind("gptq", 16))
    path = packed / "model.safetensors"
    spec, tensors = read_spec(packed), load_file(path)
    save_file(tensors | {f"{Q_PROJ}.bias": np.zeros(64, np.float16)}, path)
    assert "layers.0.qkv_bias" not in load_weights(packed, spec, torch.float32)
    save_file(tensors | {f"{Q_PROJ}.bias": np.ones(64, np.float16)}, path)
    with pytest.raises(ModelError, match="not zero"):
        load_weights(packed, spec, torch.float32)


def test_an_index_of_groups_may_be_left_out(tmp_path: Path) -> None:
    packed, _ = make_pair(tmp_path, Kind("gptq", 16))
    whole = load_weights(packed, read_spec(packed), torch.float32)["layers.0.qkv"]
    path = packed / "model.safetensors"
    save_file({name: t for name, t in load_file(path).items() if not name.endswith("g_idx")}, path)
    assert torch.equal(load_weights(packed, read_spec(packed), torch.float32)["layers.0.qkv"].nibbles, whole.nibbles)


def change(name: str, new: Callable[[np.ndarray], np.ndarray | None]) -> Callable[[dict[str, np.ndarray]], None]:
    """Replace one tensor of the first q_proj, or drop it."""

    def apply(tensors: dict[str, np.ndarray]) -> None:
        tensor = new(tensors.pop(f"{Q_PROJ}.{name}"))
        if tensor is not None:
            tensors[f"{Q_PROJ}.{name}"] = np.ascontiguousarray(tensor)

    return apply


def put(place: tuple[int, ...], value: float) -> Callable[[np.ndarray], np.ndarray]:
    def apply(tensor: np.ndarray) -> np.ndarray:
        tensor = tensor.copy()
        tensor[place] = value
        return tensor

    return apply


DAMAGED: dict[str, tuple[Kind, Callable[[dict[str, np.ndarray]], Any], str]] = {
    "scales missing": (Kind("awq", 16), change("scales", lambda t: None), "scales"),
    "zero points missing": (Kind("gptq", 16), change("qzeros", lambda t: None), "qzeros"),
    "weights of another shape": (Kind("gptq", 16), change("qweight", lambda t: t[:-1]), "config.json makes it"),
    "packed along the wrong side": (Kind("gptq", 16), change("qweight", lambda t: t.T), r"\[64, 8\]"),
    "scales of another group size": (Kind("awq", 16), change("scales", lambda t: t[::2]), r"makes it \[4, 64\]"),
    "weights that are not packed": (Kind("awq", 16), change("qweight", lambda t: t.astype(np.int8)), "only I32"),
    "scales that are whole numbers": (Kind("awq", 16), change("scales", lambda t: t.astype(np.int32)), "only F16"),
    "scales that are infinite": (Kind("awq", 16), change("scales", put((0, 0), np.inf)), "NaN or infinite"),
    "scales that are too large": (
        Kind("compressed-tensors", 16, symmetric=True),
        change("weight_scale", lambda t: put((0, 0), 3e38)(t.astype(np.float32))),
        "too large",
    ),
    "a zero point out of range": (Kind("gptq", 16), change("qzeros", put((0, 0), -1)), "readers differ"),
    "a group out of range": (Kind("gptq", 16, act_order=True), change("g_idx", put((3,), 4)), "there are 4 groups"),
    "a group below zero": (Kind("gptq", 16, act_order=True), change("g_idx", put((3,), -1)), "there are 4 groups"),
    "no index under activation order": (Kind("gptq", 16, act_order=True), change("g_idx", lambda t: None), "g_idx"),
    "an order that is not stated": (Kind("gptq", 16), change("g_idx", lambda t: t[::-1]), "desc_act=false"),
    "a shape that is not the config's": (
        Kind("compressed-tensors", 16), change("weight_shape", put((1,), 60)), "weight_shape says"
    ),
    "zero points of a symmetric model": (
        Kind("compressed-tensors", 16, symmetric=True),
        lambda tensors: tensors.update({f"{Q_PROJ}.weight_zero_point": np.zeros((8, 4), np.int32)}),
        "unexpected",
    ),
    "a tensor too many": (
        Kind("awq", 16), lambda tensors: tensors.update({f"{Q_PROJ}.weight": np.zeros((64, 64))}), "unexpected"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_weights_are_refused(tmp_path: Path, name: str) -> None:
    kind, spoil, why = DAMAGED[name]
    packed, _ = make_pair(tmp_path, kind)
    tensors = load_file(packed / "model.safetensors")
    spoil(tensors)
    save_file(tensors, packed / "model.safetensors")
    with pytest.raises(ModelError, match=why):
        load_weights(packed, read_spec(packed), torch.float32)


GPTQ, AWQ = statement(Kind("gptq", 16)), statement(Kind("awq", 16))
COMPRESSED = statement(Kind("compressed-tensors", 16, symmetric=True))


def group(**changes: Any) -> dict[str, Any]:
    """compressed-tensors' statement with some arguments of its only group changed, or of its weights."""
    (old,) = COMPRESSED["config_groups"].values()
    own = {key: changes.pop(key) for key in ("targets", "input_activations") if key in changes}
    return COMPRESSED | {"config_groups": {"group_0": old | {"weights": old["weights"] | changes} | own}}


UNREADABLE: dict[str, tuple[Any, str]] = {
    "not an object": ("gptq", "must be an object"),
    "no method": ({"bits": 4}, "quant_method=None"),
    "another method": ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "one of gptq, awq, compressed"),
    "gptq of 3 bits": (GPTQ | {"bits": 3}, "bits=3: only 4"),
    "gptq of another format": (GPTQ | {"checkpoint_format": "marlin"}, "must be gptq or gptq_v2"),
    "gptq with other widths somewhere": (GPTQ | {"dynamic": {"+:down": {"bits": 8}}}, "dynamic.*not known"),
    "gptq with a head": (GPTQ | {"lm_head": True}, "lm_head=True"),
    "gptq in bytes": (GPTQ | {"pack_dtype": "int8"}, "pack_dtype"),
    "an odd group": (GPTQ | {"group_size": 15}, "group_size=15"),
    "no group": (AWQ | {"group_size": 0}, "group_size=0"),
    "a group that is text": (AWQ | {"group_size": "128"}, "group_size='128'"),
    "awq of 8 bits": (AWQ | {"bits": 8}, "bits=8"),
    "awq of another layout": (AWQ | {"version": "gemv"}, "only gemm"),
    "awq without zeros": (AWQ | {"zero_point": False}, "zero_point=False: only true"),
    "awq of a part of a product": (AWQ | {"modules_to_not_convert": ["k_proj"]}, "only some are int4"),
    "compressed to fp8": (COMPRESSED | {"format": "float-quantized"}, "weights of float-quantized must be FP8"),
    "compressed with a head": (COMPRESSED | {"ignore": []}, "lm_head is quantised"),
    "compressed KV": (COMPRESSED | {"kv_cache_scheme": {"num_bits": 8}}, "kv_cache_scheme"),
    "compressed in two ways": (COMPRESSED | {"config_groups": {"a": {}, "b": {}}}, "one group"),
    "compressed floats": (group(type="float"), "type='float'"),
    "compressed by tensor": (group(strategy="tensor", group_size=None), "strategy='tensor'"),
    "compressed without a strategy": (group(strategy=None, group_size=None), "strategy=None"),
    "compressed blocks": (group(block_structure=[128, 128]), "block_structure.*not known"),
    "compressed activations": (group(input_activations={"num_bits": 8}), "input_activations"),
    "compressed in some places": (group(targets=["re:.*mlp.*"]), "targets"),
    "a pattern that could take long": (COMPRESSED | {"ignore": ["lm_head", "re:(a+)+$"]}, "up to 3 times"),
    "a pattern with many stars": (COMPRESSED | {"ignore": ["lm_head", "re:" + ".*a" * 9]}, "up to 3 times"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_other_formats_are_refused(tmp_path: Path, name: str) -> None:
    stated, why = UNREADABLE[name]
    packed, _ = make_pair(tmp_path, Kind("awq", 16))
    set_config(packed, stated)
    with pytest.raises(ModelError, match=why):
        read_spec(packed)


CONTRADICTIONS: dict[str, tuple[Kind, dict[str, Any], str]] = {
    "gptq that is not symmetric": (Kind("gptq", 16), {"sym": True}, r"qzeros has a zero point of \d+, .*sym=true"),
    "gptq_v2 that is not symmetric": (
        Kind("gptq_v2", 16),
        {"sym": True},
        r"qzeros has a zero point of \d+, .*sym=true",
    ),
    "version 2 called 1": (Kind("gptq_v2", 16, symmetric=True), {"checkpoint_format": "gptq"}, "zero point of 9"),
    "version 1 called 2": (Kind("gptq", 16, symmetric=True), {"checkpoint_format": "gptq_v2"}, "zero point of 7"),
    "awq that is not symmetric": (Kind("awq", 16), {"sym": True}, r"qzeros has a zero point of \d+, .*sym=true"),
    "an order that is denied": (Kind("gptq", 16, act_order=True), {"desc_act": False}, "not in order of the groups"),
    "smaller groups": (Kind("gptq", 16), {"group_size": 32}, r"is \[4, 8\], config.json makes it \[2, 8\]"),
    "groups of awq": (Kind("awq", 16), {"group_size": -1}, r"config.json makes it \[1, 8\]"),
    "another packing": (Kind("awq", 16), GPTQ, "config.json makes it"),
    "packing of compressed-tensors": (Kind("awq", 16), COMPRESSED, "tensors missing"),
    "compressed zero points": (Kind("compressed-tensors", 16), COMPRESSED, "unexpected tensors, first .*zero_point"),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_weights_that_are_not_what_config_says_are_refused(tmp_path: Path, name: str) -> None:
    kind, changes, why = CONTRADICTIONS[name]
    packed, _ = make_pair(tmp_path, kind)
    stated = statement(kind)
    set_config(packed, changes if "quant_method" in changes else stated | changes)
    with pytest.raises(ModelError, match=why):
        load_weights(packed, read_spec(packed), torch.float32)


def test_packed_weights_of_which_config_says_nothing(tmp_path: Path) -> None:
    packed, _ = make_pair(tmp_path, Kind("gptq", 16))
    set_config(packed, {})
    with pytest.raises(ModelError, match=r"there is '.*qweight', but config.json has no quantization_config"):
        load_weights(packed, read_spec(packed), torch.float32)


def test_plain_weights_of_which_config_says_that_they_are_packed(tmp_path: Path) -> None:
    _, plain = make_pair(tmp_path, Kind("gptq", 16))
    set_config(plain, GPTQ)
    with pytest.raises(ModelError, match=r"config.json has a quantization_config, but no tensor is packed"):
        load_weights(plain, read_spec(plain), torch.float32)


@pytest.mark.parametrize(
    ("name", "values", "why"),
    [
        ("quantize_config.json", {"bits": 8}, "bits=8, config.json has bits=4"),
        ("quantize_config.json", {"desc_act": True}, "desc_act=True, config.json has desc_act=False"),
        ("quantize_config.json", {"sym": True}, "sym=True, config.json has sym=False"),
        ("quant_config.json", {"q_group_size": 128}, "q_group_size=128, config.json has group_size=16"),
    ],
)
def test_another_file_that_contradicts_is_refused(name: str, values: dict[str, Any], why: str, tmp_path: Path) -> None:
    packed, plain = make_pair(tmp_path, Kind("gptq", 16))
    agreeing = {"bits": 4, "w_bit": 4, "group_size": 16, "desc_act": False, "sym": False, "checkpoint_format": "GPTQ"}
    (packed / name).write_text(json.dumps(agreeing))
    assert read_spec(packed).notes == ()
    (packed / name).write_text(json.dumps(values))
    with pytest.raises(ModelError, match=f"{name} has {why}"):
        read_spec(packed)
    (plain / name).write_text(json.dumps(values))
    assert f"{name} is not read" in "".join(read_spec(plain).notes)


def test_a_file_of_another_tool_is_named(tmp_path: Path) -> None:
    packed, _ = make_pair(tmp_path, Kind("gptq", 16))
    (packed / "hf_quant_config.json").write_text(json.dumps({"quantization": {"kv_cache_quant_algo": "FP8"}}))
    assert "hf_quant_config.json is not read" in "".join(read_spec(packed).notes)


def test_sizes_that_cannot_be_packed(tmp_path: Path) -> None:
    packed, _ = make_pair(tmp_path, Kind("compressed-tensors", 4, overrides={"intermediate_size": 172}))
    set_config(packed, AWQ | {"group_size": 4})
    with pytest.raises(ModelError, match="172 outputs and 64 inputs cannot be packed as awq"):
        StoredWeights(packed, read_spec(packed), torch.float32)
