"""What a configuration says of experts: read as transformers reads it, or refused with the value and the limit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.mixtures import PLAIN, SIZES
from umbel.errors import ModelError
from umbel.ir.experts import Router
from umbel.models.families import read_spec

REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "experts in some layers": ("glm4_moe", {"moe_layer_freq": 2}, "moe_layer_freq=2"),
    "other scores": ("minimax_m2", {"scoring_func": "softmax"}, "scoring_func='softmax'"),
    "another choice": ("deepseek_v2", {"topk_method": "noaux_tc"}, "topk_method='noaux_tc'"),
    "shares that add up": ("deepseek_v2", {"norm_topk_prob": True}, "norm_topk_prob=True"),
    "a bias": ("deepseek_v3", {"attention_bias": True}, "attention_bias=True"),
    "three experts": ("phimoe", {"num_experts_per_tok": 3}, "tokens of these models always have 2 experts"),
    "another gate": ("qwen2_moe", {"hidden_act": "gelu"}, "experts compute 'silu'"),
    "no width of the shared expert": (
        "qwen2_moe", {"shared_expert_intermediate_size": None}, "shared_expert_intermediate_size=None",
    ),
    "clipped heads": ("olmoe", {"clip_qkv": 8.0}, "clip_qkv=8.0"),
    "groups of unequal sizes": ("dots1", {"n_group": 3}, "n_group=3, topk_group=2: no such groups of 8 experts"),
    "groups of one": ("dots1", {"n_group": 8}, "n_group=8"),
    "more groups than there are": ("dots1", {"topk_group": 5}, "topk_group=5"),
    "too few experts in the best groups": ("dots1", {"topk_group": 1}, "num_experts_per_tok=3: topk_group=1 groups"),
    "no shared experts": ("dots1", {"n_shared_experts": None}, "n_shared_experts=None"),
    "a scale that is none": ("dots1", {"routed_scaling_factor": -1.0}, "routed_scaling_factor=-1.0"),
    "a scale in words": ("dots1", {"routed_scaling_factor": "2"}, "routed_scaling_factor='2'"),
    "two counts": ("dots1", {"num_experts": 4}, r"differ: \[4, 8\]"),
    "windows that are asked for": ("dots1", {"use_sliding_window": True}, "use_sliding_window=True"),
}  # fmt: skip


def config_of(directory: Path, family: str, overrides: dict[str, Any]) -> Path:
    config = SIZES | {"model_type": family, "dtype": "float32"} | PLAIN[family] | overrides
    (directory / "config.json").write_text(json.dumps(config))
    return directory


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, tmp_path: Path) -> None:
    family, overrides, message = REFUSED[name]
    with pytest.raises(ModelError, match=message):
        read_spec(config_of(tmp_path, family, overrides))


def test_what_is_not_stated_is_as_in_transformers(tmp_path: Path) -> None:
    left_out = dict.fromkeys(("n_group", "topk_group", "norm_topk_prob", "routed_scaling_factor"))
    dots = read_spec(config_of(tmp_path, "dots1", left_out | {"first_k_dense_replace": None})).experts
    assert dots is not None and (dots.dense_layers, dots.shared_width) == ((), 80)
    assert dots.router == Router("sigmoid", epsilon=1e-20, corrected=True, group_best=2, in_float32=True)
    qwen = read_spec(config_of(tmp_path, "qwen2_moe", {"qkv_bias": None, "norm_topk_prob": None}))
    assert qwen.layer(0).qkv_bias and qwen.experts is not None and not qwen.experts.router.normalised


def test_a_mixture_may_have_no_experts_in_any_layer(tmp_path: Path) -> None:
    assert read_spec(config_of(tmp_path, "dots1", {"first_k_dense_replace": 3})).experts is None
    assert read_spec(config_of(tmp_path, "qwen2_moe", {"mlp_only_layers": [0, 1, 2]})).experts is None
