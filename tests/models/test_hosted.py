"""Models that run through transformers: equal tokens to its own, bits of their own, and refusals by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tests.oracle.hf import agreement, greedy, prompts_around_borders
from tests.parameters import few_of
from tests.tiny_models import make_model
from tests.tiny_types import VOCAB_SIZE, save_tiny, tiny_config, tiny_module
from umbel import LLM, SamplingParams
from umbel.cost.devices import machine_of
from umbel.cost.roofline import Load, Price
from umbel.cost.shape import Shape
from umbel.errors import ModelError, UsageError
from umbel.models.families import FAMILIES, read_spec
from umbel.models.hosted.classes import class_of
from umbel.models.hosted.fate import fate_of, model_types
from umbel.sim.model import find_model

TYPES = (
    "apertus", "nemotron", "afmoe", "gpt2", "opt", "olmo2", "cohere2", "codegen", "ernie4_5_moe", "exaone4", "glm4",
    "gpt_oss", "deepseek_v3", "vaultgemma", "mimo_v2_flash",
    "gpt_bigcode", "gpt_neox", "granite", "granitemoe", "olmoe", "phi", "persimmon", "smollm3", "starcoder2",
)  # fmt: skip
GREEDY = SamplingParams(temperature=0, max_tokens=10)


def saved(directory: Path, model_type: str, **more: Any) -> Path:
    """A tiny random model of a type in a directory."""
    return save_tiny(directory, tiny_module(class_of(model_type), tiny_config(model_type, **more)))


def hosted(directory: Path, **options: Any) -> LLM:
    """The model in a directory, through transformers, in float32."""
    return LLM(str(directory), dtype="float32", model_impl="transformers", **options)


def edited(directory: Path, **more: Any) -> Path:
    """The directory with other values in its config.json."""
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | more))
    return directory


@pytest.mark.parametrize("model_type", few_of(TYPES[:3], TYPES[3:]))
def test_a_batch_has_the_tokens_of_each_prompt_alone_in_transformers(model_type: str, tmp_path: Path) -> None:
    directory = saved(tmp_path, model_type)
    prompts = prompts_around_borders(3, 12, VOCAB_SIZE, 65)
    outputs = hosted(directory, kv_tokens=160, chunk=48).generate(prompts, GREEDY, use_tqdm=False)
    found = [
        agreement(output.outputs[0].token_ids, wanted)
        for output, wanted in zip(outputs, greedy(directory, prompts, 10), strict=True)
    ]
    assert found.count("different") == 0 and found.count("same") >= 10


OF_THEIR_OWN = ("stablelm", "falcon")  # whose attention does not go through the interface: native alone
# Nor does a module of transformers that keeps states run on our KV.
WITH_STATES = ("lfm2", "qwen3_5_text", "qwen3_next", "granitemoehybrid", "bamba")
BOTH_WAYS = tuple(family for family in FAMILIES if family not in (*OF_THEIR_OWN, *WITH_STATES))


@pytest.mark.parametrize("family", OF_THEIR_OWN)
def test_attention_beside_the_interface_is_refused(family: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="attention interface"):
        hosted(saved(tmp_path, family))


@pytest.mark.parametrize("family", few_of(BOTH_WAYS[:1], BOTH_WAYS[1:]))
def test_native_families_have_the_same_tokens_through_transformers(family: str, tmp_path: Path) -> None:
    directory, prompts = saved(tmp_path, family), prompts_around_borders(5, 12, VOCAB_SIZE, 65)
    native, through = (
        LLM(str(directory), dtype="float32", model_impl=impl).generate(prompts, GREEDY, use_tqdm=False)
        for impl in ("native", "transformers")
    )
    assert [o.outputs[0].token_ids for o in native] == [o.outputs[0].token_ids for o in through]


@pytest.mark.parametrize("model_type", ["nemotron", "gpt2", "olmoe"])
def test_bits_do_not_depend_on_neighbours_chunks_or_the_pool(model_type: str, tmp_path: Path) -> None:
    directory, prompts = saved(tmp_path, model_type), prompts_around_borders(9, 8, VOCAB_SIZE, 40)
    params = SamplingParams(temperature=0.8, seed=1, max_tokens=6, logprobs=2)
    together = hosted(directory, kv_tokens=128, chunk=16).generate(prompts, params, use_tqdm=False)
    llm = hosted(directory)
    for prompt, wanted in zip(prompts[:4], together, strict=False):
        (alone,) = llm.generate([prompt], params, use_tqdm=False)
        assert alone.outputs[0].token_ids == wanted.outputs[0].token_ids
        assert alone.outputs[0].cumulative_logprob == wanted.outputs[0].cumulative_logprob


def test_every_type_has_one_fate() -> None:
    fates = {model_type: fate_of(model_type) for model_type in model_types()}
    assert {model_type for model_type, fate in fates.items() if fate.way == "native"} == set(FAMILIES)
    assert fates["nemotron"].way == "transformers" and fates["nemotron"].reason == "NemotronForCausalLM"
    words = {"mamba": "recurrent", "bart": "encoder-decoder", "bloom": "attention interface", "gemma3": "vision_config"}
    for model_type, word in words.items():
        assert fates[model_type].way == "refused" and word in fates[model_type].reason
    assert fate_of("t5").reason.endswith("has no causal decoder of this type")
    assert fate_of("no-such").reason.endswith("has no such type")


@pytest.mark.parametrize(
    ("model_type", "message"),
    [
        ("diffllama", "not one after the other, each once"),
        ("deepseek_v32", "passes indices to attention"),
        ("doge", "mask is not a causal one"),
        ("camembert", "do not give their own logits"),
    ],
)
def test_what_attention_cannot_obey_is_refused(model_type: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        hosted(saved(tmp_path, model_type))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"auto_map": {"AutoModel": "code.py"}}, "custom code"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        ({"architectures": ["NemotronModel"]}, "only NemotronForCausalLM is supported"),
        ({"model_type": "unknown"}, "has no such type"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers=1000000000"),
        ({"hidden_size": "wide"}, "transformers refuses it"),
        ({"num_attention_heads": 5}, "are not understood"),
    ],
)
def test_configs_that_cannot_run_are_refused_before_anything_is_loaded(
    more: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=message):
        read_spec(edited(saved(tmp_path, "nemotron"), **more))


def test_tensors_that_are_missing_unexpected_or_misshapen_are_refused(tmp_path: Path) -> None:
    directory = saved(tmp_path, "nemotron")
    file = directory / "model.safetensors"
    tensors, name = load_file(file), "model.layers.1.self_attn.k_proj.weight"
    for changed, message in (
        ({n: t for n, t in tensors.items() if n != name}, f"1 tensors missing, first '{name}'"),
        (tensors | {"model.spare.weight": tensors[name].clone()}, "1 tensors unexpected, first 'model.spare.weight'"),
        (tensors | {name: tensors[name][:3].clone()}, rf"tensor {name} is \[3, 64\], config.json makes it \[32, 64\]"),
        (tensors | {name: tensors[name] * float("nan")}, "NaN or infinite"),
    ):
        save_file(changed, file, {"format": "pt"})
        with pytest.raises(ModelError, match=message):
            hosted(directory)
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(ModelError, match=str(directory)):
        hosted(directory)


def test_positions_that_depend_on_the_length_end_the_context(tmp_path: Path) -> None:
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}
    spec = read_spec(saved(tmp_path, "nemotron", rope_parameters=rope, max_position_embeddings=64))
    assert spec.max_positions == 64
    long = {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8, "rope_theta": 1e4}
    parameters = long | {"original_max_position_embeddings": 32}
    spec = read_spec(edited(tmp_path, rope_parameters=parameters, max_position_embeddings=128))
    assert spec.max_positions == 32
    assert any("longrope" in note and "contexts end there" in note for note in spec.notes)


def test_the_plan_says_that_it_is_slower_and_what_is_asked_for_holds(tmp_path: Path) -> None:
    directory = saved(tmp_path / "model", "nemotron")
    assert any("through transformers" in note and "slower" in note for note in read_spec(directory).notes)
    with pytest.raises(ModelError, match="model_type='nemotron'"):
        read_spec(directory, "native")
    native = make_model(tmp_path / "llama", "llama")
    assert read_spec(native).hosted is None and read_spec(native, "transformers").hosted is not None
    with pytest.raises(UsageError, match="tensor_parallel_size=2"):
        hosted(directory, tensor_parallel_size=2)


def test_a_module_that_cannot_take_packed_rows_is_refused_by_name(tmp_path: Path) -> None:
    directory = saved(tmp_path, "gemma4_text", num_hidden_layers=4)
    with pytest.raises(ModelError, match="gemma4_text"):
        LLM(str(directory), dtype="float32")


def test_a_plan_without_weights_is_of_the_module_that_runs(tmp_path: Path) -> None:
    """`umbel plan --model-impl transformers` plans what `umbel run` does, and prices what a module costs a step."""
    directory = str(make_model(tmp_path / "m", "llama"))
    ours, _ = find_model(directory)
    theirs, _ = find_model(directory, "transformers")
    assert ours.hosted is None and theirs.hosted is not None
    machine, one = machine_of("a100"), Load.one(tokens=1, samples=1, pairs=8, kv_read=8)
    native, module = (Price(Shape.of(spec, "float32"), machine, "float32", spec.n_layers) for spec in (ours, theirs))
    more = module.total(one).expected - native.total(one).expected
    assert more > 2e-4 * ours.n_layers  # measured: a third of a millisecond in each
