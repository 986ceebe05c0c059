"""config.json to spec: what each family means, what is refused, and where models are looked for."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_models import BASE, FAMILIES
from umbel.errors import ModelError
from umbel.ir.experts import Experts, Router
from umbel.ir.layer import HeadNorm, Layer, Rope, RopeScaling
from umbel.models.families import read_spec, resolve_model

LLAMA3_ROPE = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "layers": ("llama", {"num_hidden_layers": 10**9}, "num_hidden_layers"),
    "head size 0": ("llama", {"head_dim": 0}, "head_dim"),
    "odd head size": ("llama", {"head_dim": 15}, "even"),
    "vocabulary": ("llama", {"vocab_size": 2**40}, "vocab_size"),
    "product": (
        "llama",
        {"num_hidden_layers": 1024, "hidden_size": 2**17, "intermediate_size": 2**20, "head_dim": 16},
        "parameters",
    ),
    "negative": ("llama", {"hidden_size": -64}, "hidden_size"),
    "true is no number": ("llama", {"num_hidden_layers": True}, "num_hidden_layers"),
    "text is no number": ("llama", {"hidden_size": "64"}, "hidden_size"),
    "missing size": ("llama", {"hidden_size": None}, "hidden_size"),
    "NaN": ("llama", {"rope_theta": float("nan")}, "rope_theta"),
    "heads and groups": ("llama", {"num_key_value_heads": 3}, "multiple"),
    "heads and hidden": ("llama", {"num_attention_heads": 5, "num_key_value_heads": 5}, "head_dim"),
    "auto_map": ("llama", {"auto_map": {"AutoModel": "evil.Model"}}, "auto_map"),
    "attention code": ("llama", {"_attn_implementation_internal": "evil/kernel"}, "_attn_implementation_internal"),
    "attention from a hub": ("llama", {"attn_implementation": "kernels-community/x"}, "attn_implementation"),
    "quantised": ("llama", {"quantization_config": {"bits": 4}}, "quantization_config"),
    "unknown family": ("llama", {"model_type": "lama"}, "model_type='lama': transformers .* has no such type"),
    "no family": ("llama", {"model_type": ["llama"]}, "model_type"),
    "other head": ("llama", {"architectures": ["LlamaForTokenClassification"]}, "architectures"),
    "activation": ("llama", {"hidden_act": "mish"}, "hidden_act"),
    "eos text": ("llama", {"eos_token_id": "</s>"}, "eos_token_id"),
    "many eos": ("llama", {"eos_token_id": [1] * 2000}, "eos_token_id"),
    "another rope": ("llama", {"rope_scaling": {"type": "mrope", "factor": 4.0}}, "rope_type"),
    "longrope without factors": ("llama", {"rope_scaling": {"type": "longrope", "factor": 4.0}}, "short_factor"),
    "activation of experts": ("mixtral", {"hidden_act": "gelu"}, "hidden_act"),
    "partial rotary": ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    "rope per layer": ("llama", {"rope_parameters": {"full_attention": {}}}, "rope_parameters"),
    "rope bounds": ("llama", {"rope_scaling": LLAMA3_ROPE | {"high_freq_factor": 1.0}}, "high_freq_factor"),
    "rope without factor": ("llama", {"rope_scaling": {"rope_type": "linear"}}, "factor"),
    "mixed layer types": ("qwen3", {"layer_types": ["full_attention", "sliding_attention"]}, "window"),
    "window 0": ("mistral", {"sliding_window": 0}, "sliding_window"),
    "flag": ("llama", {"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
    "dtype": ("llama", {"torch_dtype": "int4"}, "dtype"),
    "no experts": ("qwen3_moe", {"num_experts": 0}, "num_experts=0"),
    "missing experts": ("mixtral", {"num_local_experts": None}, "num_local_experts"),
    "two numbers of experts": ("qwen3_moe", {"num_local_experts": 4}, "differ"),
    "many experts": ("mixtral", {"num_local_experts": 2**20}, "num_local_experts"),
    "more than there are": ("mixtral", {"num_experts_per_tok": 5}, "there are 4 experts"),
    "experts without width": ("qwen3_moe", {"moe_intermediate_size": None}, "moe_intermediate_size"),
    "large experts": (
        "qwen3_moe",
        {"num_experts": 4096, "moe_intermediate_size": 2**20, "hidden_size": 2**17, "num_hidden_layers": 1024},
        "parameters",
    ),
    "step 0": ("qwen3_moe", {"decoder_sparse_step": 0}, "decoder_sparse_step"),
    "dense layer that is none": ("qwen3_moe", {"mlp_only_layers": [2]}, "mlp_only_layers"),
    "dense layers that are none": ("qwen3_moe", {"mlp_only_layers": {"0": 1}}, "mlp_only_layers"),
    "shares": ("qwen3_moe", {"norm_topk_prob": 1}, "norm_topk_prob"),
    "experts in 4 bits": (
        "mixtral",
        {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False}},
        "experts in 4 bits",
    ),
    "recurrent": ("mixtral", {"model_type": "mamba"}, "model_type='mamba': its layers keep a recurrent state"),
}


def write_config(directory: Path, family: str, **overrides: Any) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(BASE | {"model_type": family} | FAMILIES[family] | overrides))
    return directory


def scaled(scaling: RopeScaling) -> tuple[Layer]:
    """Layers of a llama model with stretched positions."""
    return (Layer(rope=Rope(scaling=scaling)),)


@pytest.mark.parametrize("name", REFUSED)
def test_refused_configs(name: str, tmp_path: Path):
    family, overrides, named = REFUSED[name]
    with pytest.raises(ModelError, match=named):
        read_spec(write_config(tmp_path, family, **overrides))


@pytest.mark.parametrize(
    "content", [b"", b"[1]", b"{", b"\xff\xfe{}", b"[" * 100_000, b'{"a": ' * 100_000, b" " * 5_000_000]
)
def test_config_that_is_no_json_object(content: bytes, tmp_path: Path):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"config\.json"):
        read_spec(tmp_path)


def test_what_makes_the_families_differ(tmp_path: Path):
    llama = read_spec(write_config(tmp_path / "a", "llama", attention_bias=True, mlp_bias=True, sliding_window=9))
    assert llama.layers == (Layer(qkv_bias=True, o_bias=True, mlp_bias=True),)
    assert (llama.head_dim, llama.kv_shape(0).window) == (16, None)
    qwen2 = read_spec(write_config(tmp_path / "b", "qwen2", sliding_window=8))
    assert (qwen2.layers, qwen2.tied_embeddings) == ((Layer(qkv_bias=True),), True)
    qwen3 = read_spec(write_config(tmp_path / "c", "qwen3", head_dim=None))
    assert (qwen3.layers, qwen3.head_dim) == ((Layer(head_norm=HeadNorm()),), 128)
    mistral = read_spec(write_config(tmp_path / "d", "mistral", sliding_window=8))
    assert (mistral.kv_shape(0).window, mistral.head_dim, mistral.kv_shape(0).group_size) == (8, 24, 2)


def test_which_layers_have_experts(tmp_path: Path):
    mixtral = read_spec(write_config(tmp_path / "a", "mixtral"))
    assert mixtral.experts == Experts(count=4, per_token=2, width=48, router=Router(normalised=True))
    qwen = read_spec(write_config(tmp_path / "b", "qwen3_moe", norm_topk_prob=None))
    assert qwen.experts == Experts(count=8, per_token=3, width=40, router=Router())
    assert (qwen.layers, qwen.intermediate_size) == ((Layer(head_norm=HeadNorm()),), 172)
    some = {"num_hidden_layers": 6, "decoder_sparse_step": 3, "mlp_only_layers": [5]}
    spec = read_spec(write_config(tmp_path / "c", "qwen3_moe", **some))
    assert spec.experts and spec.experts.dense_layers == (0, 1, 3, 4, 5)
    assert read_spec(write_config(tmp_path / "d", "qwen3_moe", mlp_only_layers=[0, 1])).experts is None
    assert read_spec(write_config(tmp_path / "e", "qwen2")).experts is None
    newer = {"num_experts": None, "num_local_experts": 8}  # as transformers 5 writes it
    assert read_spec(write_config(tmp_path / "f", "qwen3_moe", **newer)).experts == replace(
        qwen.experts, router=Router(normalised=True)
    )


def test_what_mixtral_is_without_being_told(tmp_path: Path):
    spec = read_spec(write_config(tmp_path / "a", "mixtral", rope_theta=None, rms_norm_eps=None))
    assert (spec.rope_theta, spec.norm_eps, spec.kv_shape(0).window) == (1e6, 1e-5, None)
    assert read_spec(write_config(tmp_path / "b", "mixtral", sliding_window=7)).kv_shape(0).window == 7


def test_sliding_window_of_all_layers_or_of_none(tmp_path: Path):
    on = {"use_sliding_window": True, "sliding_window": 8}
    assert read_spec(write_config(tmp_path / "a", "qwen2", **on, max_window_layers=0)).kv_shape(0).window == 8
    assert read_spec(write_config(tmp_path / "b", "qwen2", **on, max_window_layers=28)).kv_shape(0).window is None
    both = ["sliding_attention"] * 2
    assert read_spec(write_config(tmp_path / "c", "qwen3", **on, layer_types=both)).kv_shape(0).window == 8


def test_rotary_settings_under_old_and_new_names(tmp_path: Path):
    expected = RopeScaling("llama3", 8.0, 1.0, 4.0, 512)
    old = read_spec(write_config(tmp_path / "a", "llama", rope_theta=5e5, rope_scaling=LLAMA3_ROPE))
    new = read_spec(write_config(tmp_path / "b", "llama", rope_parameters=LLAMA3_ROPE | {"rope_theta": 5e5}))
    assert (old.layers, old.rope_theta) == (new.layers, new.rope_theta) == (scaled(expected), 5e5)
    older = read_spec(write_config(tmp_path / "c", "llama", rope_scaling={"type": "linear", "factor": 2}))
    assert older.layers == scaled(RopeScaling("linear", 2.0))
    plain = read_spec(
        write_config(tmp_path / "d", "llama", rope_parameters={"rope_type": "default", "rope_theta": 7.0})
    )
    assert (plain.layers, plain.rope_theta) == ((Layer(),), 7.0)


def test_ends_of_an_answer_come_from_both_files(tmp_path: Path):
    write_config(tmp_path, "llama", eos_token_id=[2, 5])
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": 7}))
    assert read_spec(tmp_path).eos_token_ids == (2, 5, 7)


def test_unknown_harmless_keys_are_ignored(tmp_path: Path):
    assert read_spec(write_config(tmp_path, "llama", foo=1, _attn_implementation_autoset=True)).n_layers == 2


def test_where_models_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (place := tmp_path / "some" / "place").mkdir(parents=True)
    monkeypatch.chdir(place)  # what lies above the folder of the tests is not known
    assert resolve_model(str(tmp_path)) == tmp_path
    (tmp_path / "file").write_text("")
    for name in (str(tmp_path / "file"), str(tmp_path / "none"), "../../x", "no-such", "a/b/c", "", "a/../b"):
        with pytest.raises(ModelError, match="model"):
            resolve_model(name)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE"):
        resolve_model("nobody-here/no-such-model-on-any-hub")


def test_reading_a_spec_and_a_tokenizer_imports_neither_torch_nor_transformers():
    code = (
        "import sys, umbel.models.families, umbel.text.tokenizer, umbel.text.detokenizer;"
        "assert not {'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)
