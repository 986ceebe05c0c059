"""Adapters in PEFT's layout: logits are those of PEFT itself, and what cannot be used is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from tests.adapters import ATTENTION, MLP, PREFIX, write_adapter
from tests.models.dense import dense_logits
from tests.models.zoo import make_zoo_model
from tests.parameters import few_of
from tests.tiny_models import make_model
from umbel.config import EngineConfig
from umbel.engine.build import Model
from umbel.errors import ModelError, UsageError
from umbel.ir.adapter import names_of
from umbel.ir.spec import ModelSpec
from umbel.models.adapters.modules import adapted_spec
from umbel.models.families import read_spec

EVERY = "all-linear"
FUSED = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
# By family: target modules, and other settings of PEFT.
SHORT = [
    ("qwen3", EVERY, {"rank_pattern": {"q_proj": 7, "layers.1.mlp.up_proj": 2}, "alpha_pattern": {"v_proj": 3}}),
    ("phi3", FUSED, {"use_rslora": True}),
    ("neox", ["query_key_value", "dense_4h_to_h"], {}),
    ("gpt2", ["c_attn", "c_fc"], {"fan_in_fan_out": True}),
    ("glm4", EVERY, {"alpha_pattern": {r"^model.layers.\d+.self_attn.k_proj": 5}}),
]
OTHERS = [
    ("llama", EVERY, {}),
    ("gemma3", ["q_proj", "v_proj", "down_proj"], {"layers_to_transform": [1]}),
    ("gemma2", EVERY, {}),
    ("ernie", ["q_proj", "k_proj"], {}),
    ("cohere", ["q_proj", "gate_proj"], {}),
    ("olmo2", EVERY, {}),
    ("falcon-40b", ["query_key_value", "dense"], {}),
    ("opt", ["q_proj", "v_proj", "fc1"], {}),
    ("lfm2", ["in_proj", "out_proj", "q_proj", "w1"], {}),
    ("granite-hybrid", ["in_proj", "out_proj", "q_proj", "input_linear"], {}),
    ("smollm3", EVERY, {"use_rslora": True}),
]


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")  # PEFT asks transformers for it
@pytest.mark.parametrize(("name", "modules", "settings"), few_of(SHORT, OTHERS))
def test_logits_are_those_of_peft(name: str, modules: Any, settings: dict[str, Any], tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="PEFT is not installed here")
    base = make_zoo_model(tmp_path / "model", name)
    torch.manual_seed(1)
    asked = {"r": 4, "lora_alpha": 12, "target_modules": modules, "task_type": "CAUSAL_LM", "init_lora_weights": False}
    wrapped = peft.get_peft_model(base, peft.LoraConfig(**(asked | settings))).eval()
    for own, weight in wrapped.named_parameters():
        if "lora_" in own:
            weight.data *= 4
    wrapped.save_pretrained(tmp_path / "adapter")
    decoder = loaded(tmp_path / "model", [f"a={tmp_path / 'adapter'}"]).decoder
    tokens = [(7 * i) % 300 + 3 for i in range(40)]
    assert decoder.adapters is not None
    for wanted, noise, scope in _logits(wrapped, tokens):
        decoder.adapters.prepare(step_of(scope), np.arange(40))
        error = (dense_logits(decoder, tokens).double() - wanted).abs().max().item()
        assert error <= max(1e-4, 5 * noise), f"{error:.1e}, and PEFT's own error in float32 is {noise:.1e}"
    (adapted, *_), (plain, *_) = _logits(wrapped, tokens)
    assert (adapted - plain).abs().max() > 0.3, "the adapter does something"


@torch.inference_mode()
def _logits(wrapped: Any, tokens: list[int]) -> list[tuple[torch.Tensor, float, Any]]:
    """Logits by PEFT in float64, with the adapter and without it, and how far those in float32 are from them; and what
    rows of ours have."""
    found: list[tuple[torch.Tensor, float, Any]] = []
    for scope in (np.ones(len(tokens), np.int64), None):
        with nullcontext() if scope is not None else wrapped.disable_adapter():
            wide = wrapped.double()(torch.tensor([tokens])).logits[0]
            narrow = wrapped.float()(torch.tensor([tokens])).logits[0]
        found.append((wide, (narrow.double() - wide).abs().max().item(), scope))
    return found


def step_of(scope: Any) -> Any:
    """The part of a step that adapters look at: a node for each row."""
    return SimpleNamespace(scope=scope, row_begin=np.arange(40), row_end=np.arange(40) + 1)


def loaded(base: Path, lora: list[str], **options: Any) -> Model:
    return Model(EngineConfig.of(str(base), dtype="float32", device="cpu", lora=lora, **options))


def adapted(base: Path, lora: Any, **options: Any) -> ModelSpec:
    return adapted_spec(read_spec(base), EngineConfig.of(str(base), lora=lora, **options))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("base") / "model")


def changed(**settings: Any) -> Callable[[Path], None]:
    """A change of a config."""

    def change(directory: Path) -> None:
        path = directory / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))

    return change


def with_tensor(name: str, *shape: int) -> Callable[[Path], None]:
    """A change that adds a tensor, or gives it another shape; without one it goes."""

    def change(directory: Path) -> None:
        path = directory / "adapter_model.safetensors"
        tensors = load_file(path)
        tensors[PREFIX + name] = np.ones(shape, np.float32)
        save_file({n: t for n, t in tensors.items() if shape or n != PREFIX + name}, path)

    return change


def without_weights(directory: Path) -> None:
    (directory / "adapter_model.safetensors").rename(directory / "adapter_model.bin")


Q = "model.layers.0.self_attn.q_proj"
REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "prefix": (changed(peft_type="PREFIX_TUNING"), "a soft prompt has prompt_embeddings and no other tensor"),
    "other kind": (changed(peft_type="IA3"), "peft_type='IA3'"),
    "none": (changed(peft_type=None), "peft_type=None"),
    "dora": (changed(use_dora=True), "use_dora=True.*magnitudes"),
    "bias": (changed(bias="all"), "bias='all'"),
    "saved modules": (changed(modules_to_save=["lm_head"]), "modules_to_save"),
    "experts": (changed(target_parameters=["mlp.experts.down_proj"]), "target_parameters.*experts"),
    "pissa": (changed(init_lora_weights="pissa"), "init_lora_weights='pissa'.*base model"),
    "classifier": (changed(task_type="SEQ_CLS"), "task_type='SEQ_CLS'"),
    "unknown": (changed(use_magic=1), "use_magic=1"),
    "a hundred bombs": (changed(alpha_pattern={"(a*)*b": 3}), "alpha_pattern"),
    "another class": (changed(auto_mapping={"base_model_class": "OPTForCausalLM"}), "made for a 'OPTForCausalLM'"),
    "rank": (changed(r=5, rank_pattern={}), r"is \[4, 64\], this model makes it \[5, 64\] with rank 5"),
    "no rank": (changed(r=0), "r=0"),
    "another width": (with_tensor(f"{Q}.lora_A.weight", 4, 80), r"is \[4, 80\], this model makes it \[4, 64\]"),
    "one half": (with_tensor(f"{Q}.lora_B.weight"), "only one of the two"),
    "more layers": (with_tensor("model.layers.2.self_attn.q_proj.lora_A.weight", 4, 64), "layers.2.self_attn.q_proj"),
    "embedding": (with_tensor("model.embed_tokens.lora_embedding_A", 4, 300), "adapters of embeddings"),
    "head": (with_tensor("lm_head.lora_A.weight", 4, 64), "lm_head.*embedding or the head"),
    "whole": (with_tensor("lm_head.weight", 300, 64), "only matrices of low rank"),
    "magnitudes": (with_tensor(f"{Q}.lora_magnitude_vector", 64), "magnitudes of DoRA"),
    "pickle": (without_weights, "adapter_model.bin may run code"),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_what_is_not_computed_is_refused_by_name(case: str, base: Path, tmp_path: Path) -> None:
    change, text = REFUSED[case]
    change(write_adapter(tmp_path, base))
    with pytest.raises(ModelError, match=rf"adapter 'sql' \(.*{text}"):
        adapted(base, [f"sql={tmp_path}"])


def test_an_adapter_of_fewer_layers_is_refused(base: Path, tmp_path: Path) -> None:
    write_adapter(tmp_path / "part", base, layers=[0])
    assert adapted(base, [f"a={tmp_path / 'part'}"]).adapters[0].products, "it says itself that it has one layer"
    changed(layers_to_transform=None)(tmp_path / "part")
    with pytest.raises(ModelError, match=r"no matrices of model.layers.1.self_attn.q_proj, which it names"):
        adapted(base, [f"a={tmp_path / 'part'}"])


def test_models_that_take_no_adapters_are_refused(tmp_path: Path) -> None:
    experts = make_model(tmp_path / "moe", "qwen3_moe")
    write_adapter(tmp_path / "a", experts, ATTENTION)
    assert names_of(adapted(experts, [f"a={tmp_path / 'a'}"]).adapters) == ("a",)
    write_adapter(tmp_path / "b", experts, ATTENTION + MLP)
    with pytest.raises(ModelError, match="adapters of experts are not computed, those of attention are"):
        adapted(experts, [f"b={tmp_path / 'b'}"])
    with pytest.raises(UsageError, match="tensor_parallel_size=2: adapters"):
        adapted(experts, {"a": str(tmp_path / "a")}, tensor_parallel_size=2)


@pytest.mark.parametrize("given", ["sql", "=dir", "a b=dir", "a=", 5, {"b/c": "y"}])
def test_names_that_cannot_be_are_refused(given: Any, base: Path) -> None:
    asked = given if isinstance(given, dict | int) else [given]
    with pytest.raises(UsageError, match="lora="):
        adapted(base, asked)


def test_a_damaged_file_is_refused_before_anything_runs(base: Path, tmp_path: Path) -> None:
    write_adapter(tmp_path, base)
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ModelError, match=r"adapter 'a'.*damaged"):
        adapted(base, [f"a={tmp_path}"])
