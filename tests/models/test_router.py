"""Routers, shared experts and gates of the families against the blocks of transformers, in float32."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.kernels.triton_rows import use_triton_rows
from umbel.ir.experts import ClampedGate, Experts, Router
from umbel.linear.dense import DenseMethod
from umbel.linear.experts import GroupedProducts, SingleProducts
from umbel.models.batch import ForwardBatch
from umbel.models.moe import ExpertBlock
from umbel.models.router import choose_experts

HIDDEN, WIDE, COUNT, EACH = 32, 24, 12, 4
BATCH = ForwardBatch((torch.empty(0), torch.empty(0)))  # no angles: a block does not look at them
SIGMOID = Router("sigmoid", normalised=True, epsilon=1e-20, scale=2.5, corrected=True, in_float32=True)
AT_LEAST = Router(normalised=True, least_sum=0.8, corrected=True, in_float32=True)
IN_GROUPS = {"groups": 4, "groups_used": 2}
SIZES: dict[str, Any] = {
    "hidden_size": HIDDEN, "moe_intermediate_size": WIDE, "num_experts_per_tok": EACH,
    "_experts_implementation": "eager",
}  # fmt: skip
ROUTED = SIZES | {"n_routed_experts": COUNT, "n_shared_experts": 2}
LOCAL = SIZES | {"intermediate_size": WIDE, "num_local_experts": COUNT}

CASES: dict[str, tuple[str, str, dict[str, Any], Experts]] = {
    "mixtral": ("mixtral", "MixtralSparseMoeBlock", LOCAL, Experts(COUNT, EACH, WIDE, Router(normalised=True))),
    "qwen2_moe": (
        "qwen2_moe",
        "Qwen2MoeSparseMoeBlock",
        SIZES | {"num_experts": COUNT, "shared_expert_intermediate_size": 40},
        Experts(COUNT, EACH, WIDE, Router(), shared_width=40, shared_gate=True),
    ),
    "granitemoe": ("granitemoe", "GraniteMoeMoE", LOCAL, Experts(COUNT, EACH, WIDE, Router(normalised=True))),
    "ernie4_5_moe": (
        "ernie4_5_moe",
        "Ernie4_5_MoeSparseMoeBlock",
        SIZES | {"moe_k": EACH, "moe_num_experts": COUNT, "moe_num_shared_experts": 2, "moe_norm_min": 0.8},
        Experts(COUNT, EACH, WIDE, AT_LEAST, shared_width=2 * WIDE),
    ),
    "glm4_moe": (
        "glm4_moe",
        "Glm4MoeMoE",
        ROUTED | {"n_group": 4, "topk_group": 2, "routed_scaling_factor": 2.5},
        Experts(COUNT, EACH, WIDE, replace(SIGMOID, group_best=2, **IN_GROUPS), shared_width=2 * WIDE),
    ),
    "deepseek_v3 as it falls": (
        "deepseek_v3",
        "DeepseekV3MoE",
        ROUTED | {"n_group": 1, "topk_group": 1, "norm_topk_prob": False, "routed_scaling_factor": 1.5},
        Experts(COUNT, EACH, WIDE, Router("sigmoid", scale=1.5, corrected=True), shared_width=2 * WIDE),
    ),
    "deepseek_v2": (
        "deepseek_v2",
        "DeepseekV2Moe",
        ROUTED | {"n_group": 4, "topk_group": 2, "topk_method": "group_limited_greedy", "routed_scaling_factor": 3.0},
        Experts(COUNT, EACH, WIDE, Router(scale=3.0, **IN_GROUPS), shared_width=2 * WIDE),
    ),
    "gpt_oss": (
        "gpt_oss",
        "GptOssMLP",
        LOCAL | {"swiglu_limit": 2.0, "swiglu_alpha": 1.5},
        Experts(COUNT, EACH, WIDE, Router(normalised=True, biased=True), biased=True, gate=ClampedGate(1.5, 2.0)),
    ),
    "phimoe": (
        "phimoe",
        "PhimoeSparseMoeBlock",
        LOCAL | {"num_experts_per_tok": 2, "router_jitter_noise": 0.2},
        Experts(COUNT, 2, WIDE, Router("sparsemixer", band=0.4)),
    ),
}  # fmt: skip
"""Modules of transformers, with their configuration, and what we call it."""


def block_of(name: str) -> Any:
    """The block of transformers with random weights, biases and corrections, so large that each shows."""
    family, kind, config, _ = CASES[name]
    config_class = import_module("transformers").AutoConfig
    block = getattr(import_module(f"transformers.models.{family}.modeling_{family}"), kind)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        made = block(config_class.for_model(family, **config)).eval()
        for part, tensor in (*made.named_parameters(), *made.named_buffers()):
            tensor.data.normal_(0, 0.5 if tensor.ndim == 1 or "correction" in part else tensor.shape[-1] ** -0.5)
    return made


def named_as_ours(block: Any) -> dict[str, Tensor]:
    """Its tensors by our names, put together from theirs."""
    found: dict[str, Tensor] = {}
    for name, tensor in block.state_dict().items():
        whole = tensor
        if name.startswith("experts.") and "experts.gate_up_proj_bias" in block.state_dict():  # gpt-oss
            whole = whole.transpose(1, 2) if whole.ndim == 3 else whole
            if "gate_up" in name:
                whole = torch.cat((whole[:, 0::2], whole[:, 1::2]), 1)
        found[name] = whole.flatten(0, 1) if name.startswith("experts.") else whole
    router = "router" if "router.weight" in found else "gate"
    shared = next((name.split(".")[0] for name in found if name.startswith(("shared_expert.", "shared_experts."))), "")
    ours = {
        "router": found.get(f"{router}.weight"), "router_bias": found.get(f"{router}.bias"),
        "router_correction": next((t.flatten() for n, t in found.items() if n.endswith("correction_bias")), None),
        "experts_gate_up": found["experts.gate_up_proj"], "experts_down": found["experts.down_proj"],
        "experts_gate_up_bias": found.get("experts.gate_up_proj_bias"),
        "experts_down_bias": found.get("experts.down_proj_bias"),
        "shared_gate": found.get("shared_expert_gate.weight"),
    }  # fmt: skip
    if shared:
        ours["shared_gate_up"] = torch.cat((found[f"{shared}.gate_proj.weight"], found[f"{shared}.up_proj.weight"]))
        ours["shared_down"] = found[f"{shared}.down_proj.weight"]
    return {name: tensor for name, tensor in ours.items() if tensor is not None}


def rows_of(n: int) -> Tensor:
    return 2 * torch.randn((n, HIDDEN), generator=torch.Generator().manual_seed(6))


@torch.inference_mode()
def theirs(block: Any, x: Tensor) -> Tensor:
    result = block(x[None])
    return (result[0] if isinstance(result, tuple) else result)[0]


@pytest.mark.parametrize("name", CASES)
def test_blocks_are_those_of_transformers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the processor's path and through the kernels of GPUs."""
    block, experts, x = block_of(name), CASES[name][3], rows_of(90)
    named, wanted = named_as_ours(block), theirs(block, x)
    ours = ExpertBlock.of(named, DenseMethod(), experts)
    assert isinstance(ours.products, SingleProducts)
    torch.testing.assert_close(ours.apply(x, BATCH), wanted, rtol=1e-4, atol=1e-5)
    assert wanted.std() > 0.05
    use_triton_rows(monkeypatch)
    grouped = ExpertBlock.of(named, DenseMethod(), experts)
    assert isinstance(grouped.products, GroupedProducts)
    torch.testing.assert_close(grouped.apply(x, BATCH), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_what_is_told_apart_shows(name: str) -> None:
    """Every tensor changes results, so that none of them could be forgotten above."""
    block, experts, x = block_of(name), CASES[name][3], rows_of(90)
    named = named_as_ours(block)
    whole = ExpertBlock.of(named, DenseMethod(), experts).apply(x, BATCH)
    for part, tensor in named.items():
        changed = ExpertBlock.of(named | {part: tensor.flip(-1)}, DenseMethod(), experts).apply(x, BATCH)
        assert (changed - whole).abs().max() > 1e-3, part


@pytest.mark.parametrize("name", CASES)
def test_a_row_does_not_know_its_neighbours_to_the_last_bit(name: str) -> None:
    block, x = ExpertBlock.of(named_as_ours(block_of(name)), DenseMethod(), CASES[name][3]), rows_of(200)
    whole = block.apply(x, BATCH)
    for size in (1, 2, 3, 7, 16, 31, 64, 199):
        for begin in (0, 1, 200 - size):
            assert torch.equal(block.apply(x[begin : begin + size], BATCH), whole[begin : begin + size]), size
    assert block.apply(x[:0], BATCH).shape == (0, HIDDEN)


def test_of_equal_groups_and_experts_the_first_are_chosen() -> None:
    experts = Experts(8, 3, 1, Router("sigmoid", groups=4, groups_used=2, group_best=2))
    ids, shares = choose_experts(torch.zeros(2, 8), experts)
    assert ids.tolist() == [[0, 1, 2]] * 2
    assert shares.tolist() == [[0.5] * 3] * 2
    ids, _ = choose_experts(torch.tensor([[0.0, 0, 9, -1, 1, 1, 0, 0]]), experts)
    assert ids.tolist() == [[2, 4, 5]]  # the group of the best expert, and the best pair
    ids, _ = choose_experts(torch.zeros(1, 8), experts, torch.arange(8.0))
    assert ids.tolist() == [[7, 6, 5]]


def test_routers_in_float32_see_more_than_narrow_ones() -> None:
    """In bfloat16 the logits of a router that asks for float32 are those of its float32 products."""
    experts = Experts(COUNT, EACH, WIDE, SIGMOID, shared_width=2 * WIDE)
    named = {name: tensor.bfloat16() for name, tensor in named_as_ours(block_of("glm4_moe")).items()}
    choice = ExpertBlock.of(named, DenseMethod(), experts).choice
    x = rows_of(50).bfloat16()
    logits = x.double() @ named["router"].double().T
    _, wanted = choose_experts(logits.float(), experts, named["router_correction"].float())
    torch.testing.assert_close(choice.choose(x)[1], wanted, rtol=1e-5, atol=1e-6)
