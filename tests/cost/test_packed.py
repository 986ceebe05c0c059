"""Bytes of int4 weights, against the bytes of the tensors that random weights of the same spec become."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.cost.counting import tensors_of
from umbel.config import EngineConfig
from umbel.cost.cards import named
from umbel.cost.devices import joined, shared_by
from umbel.cost.operators import operators
from umbel.cost.packed import product_bytes
from umbel.cost.quantised import as_kept, price_of
from umbel.cost.shape import Shape
from umbel.ir.architecture import Matmul
from umbel.ir.experts import Experts
from umbel.ir.int4_format import LOADING, Int4Format
from umbel.ir.layer import Layer
from umbel.ir.params import SamplingParams
from umbel.ir.spec import ModelSpec
from umbel.ir.workload import Workload
from umbel.kernels.int4 import Int4Weight
from umbel.kernels.native.calls import INSTRUCTION_SETS
from umbel.linear.pick import pick_linear
from umbel.models.decoder import Decoder
from umbel.models.weights import dummy_weights
from umbel.plan.planner import make_plan

SPEC = ModelSpec("qwen2", 300, 64, 3, 4, 2, 16, 192, 512, 1e-6, 1e4, layers=(Layer(qkv_bias=True),), dtype="bfloat16")
FORMATS = {
    "groups of 16": Int4Format("awq", 16),
    "all inputs": Int4Format("compressed-tensors", None),
    "some layers": Int4Format("gptq", 32, plain=("layers.0.qkv", "layers.2.down")),
    "activation order": Int4Format("gptq", 32, act_order=True),
}
LLAMA_8B = ModelSpec("llama", 128256, 4096, 32, 32, 8, 128, 14336, 8192, 1e-5, 5e5, dtype="bfloat16")


def n_bytes(weight: torch.Tensor | Int4Weight) -> int:
    tensors = (weight.nibbles, weight.scales, weight.zeros) if isinstance(weight, Int4Weight) else (weight,)
    return sum(t.numel() * t.element_size() for t in tensors)


@pytest.mark.parametrize("name", FORMATS)
def test_bytes_are_those_of_the_tensors(name: str) -> None:
    spec = replace(SPEC, quantization=FORMATS[name])
    weights = {n: n_bytes(w) for n, w in dummy_weights(spec, torch.bfloat16).items()}
    shape = Shape.of(spec, "bfloat16")
    assert shape.weight_bytes == sum(weights.values())
    ending = sum(weights[f"layers.2.{n}"] for n in ("o", "mlp_norm", "gate_up", "down"))
    assert shape.head_bytes == weights["head"] + weights["norm"] + ending
    assert shape.layer_bytes == sum(w for n, w in weights.items() if n.startswith("layers")) - ending
    found = {o.name: o.weight_bytes + o.logit_weight_bytes for o in operators(spec, "bfloat16")}
    for product in ("o", "gate_up", "down"):
        assert found[product] == sum(weights[f"layers.{layer}.{product}"] for layer in range(3))
    dense = Shape.of(SPEC, "bfloat16")
    assert (shape.token_flops, shape.head_flops, shape.kv_bytes) == (
        dense.token_flops,
        dense.head_flops,
        dense.kv_bytes,
    )


def test_bits_of_a_weight() -> None:
    spec = replace(SPEC, quantization=LOADING)
    even, odd = (Matmul("down", inputs, (1024,), "inputs") for inputs in (4096, 4097))
    assert product_bytes(spec, 0, even, 2) * 8 / (4096 * 1024) == 4 + 24 / 128
    assert product_bytes(spec, 0, odd, 2) == 4097 * 1024 * 2  # it stays as it is


def test_processors_keep_them_if_asked() -> None:
    packed = replace(SPEC, quantization=FORMATS["groups of 16"])
    assert as_kept(packed, "dense", on_gpu=False) == as_kept(SPEC, "dense", on_gpu=False) == SPEC
    for spec, form in ((packed, packed.quantization), (SPEC, LOADING)):
        assert form is not None
        assert as_kept(spec, "int4", on_gpu=False).quantization == replace(form, on_cpu=True)
    assert as_kept(packed, "dense", on_gpu=True) == packed and as_kept(SPEC, "dense", on_gpu=True) == SPEC
    assert as_kept(SPEC, "int4", on_gpu=True).quantization == LOADING


MIXTURE = replace(SPEC, family="qwen2_moe", experts=Experts(32, 2, 64, dense_layers=(1,), shared_width=96))


def test_a_gpu_has_floats_of_a_mixture() -> None:
    assert as_kept(MIXTURE, "int4", on_gpu=True).quantization is None


@pytest.mark.skipif(not INSTRUCTION_SETS, reason="only compiled kernels multiply in 4 bits on a processor")
def test_processors_keep_experts_so_too() -> None:
    """Their own, and shared ones."""
    spec = MIXTURE
    method = pick_linear(torch.bfloat16, torch.device("cpu"), "int4")
    decoder = Decoder(spec, dummy_weights(spec, torch.bfloat16), method=method)
    kept = sum({id(t): t.nbytes for t in tensors_of(decoder)}.values())
    priced = Shape.of(as_kept(spec, "int4", on_gpu=False), "bfloat16").weight_bytes
    weights = (decoder.embedding.weight, decoder.head.weight)  # in panels, padded, where bfloat16 is multiplied
    tables = sum(getattr(weight, "panels", weight).nbytes for weight in weights)
    assert kept - tables == pytest.approx(priced - 2 * spec.vocab_size * spec.hidden_size * 2, rel=0.03)


@pytest.mark.parametrize("spec", [SPEC, replace(SPEC, quantization=FORMATS["groups of 16"])], ids=["asked", "own"])
def test_steps_are_priced_by_what_the_device_keeps(spec: ModelSpec) -> None:
    """A processor keeps floats unless asked, also the part of one that a replica has; GPUs keep nibbles, also several
    together."""
    linear = "dense" if spec.quantization else "int4"
    config = EngineConfig("x", dtype="bfloat16", linear=linear, allow_lossy=True)
    floats = sum(n_bytes(w) for w in dummy_weights(SPEC, torch.bfloat16).values())
    processor = named("this")
    for machine in (processor, shared_by(processor, 2), joined(shared_by(processor, 2), 2)):
        dense = replace(config, linear="dense")
        assert price_of(spec, dense, machine).shape.weight_bytes == floats
        assert price_of(spec, replace(config, linear="int4"), machine).shape.weight_bytes < 0.6 * floats
    packed = Shape.of(replace(spec, quantization=spec.quantization or LOADING), "bfloat16").weight_bytes
    for machine in (
        named("h200"),
        joined(named("h200"), 2),
        shared_by(named("h200"), 2),
        replace(named("h200"), name="this"),
    ):
        assert price_of(spec, config, machine).shape.weight_bytes == packed < floats / 2


def test_a_plan_for_a_gpu_has_room_for_what_is_spared() -> None:
    workload = Workload.of([[1, 2, 3]] * 4, SamplingParams(max_tokens=100))
    gpu = named("h200").with_memory(20 * 10**9)
    plans = {
        name: make_plan(workload, spec, EngineConfig("m", linear=linear, allow_lossy=linear != "dense"), gpu)
        for name, spec, linear in (
            ("dense", LLAMA_8B, "dense"),
            ("asked", LLAMA_8B, "int4"),
            ("own", replace(LLAMA_8B, quantization=Int4Format("gptq", 128)), "dense"),
        )
    }
    assert (
        plans["own"].estimates.seconds[1] == plans["asked"].estimates.seconds[1] < plans["dense"].estimates.seconds[1]
    )
    assert "checkpoint's own (gptq)" in plans["own"].decision("linear").reason
    assert plans["asked"].decision("linear").value == "int4"
    configs = (EngineConfig("x", dtype="bfloat16", linear=linear, allow_lossy=True) for linear in ("dense", "int4"))
    bytes_of = {c.linear: price_of(LLAMA_8B, c, gpu).shape.weight_bytes for c in configs}
    spared = bytes_of["dense"] - bytes_of["int4"]
    assert spared == pytest.approx((16 - 4.1875) / 8 * 6.98e9, rel=0.01)
