"""GGUF files against transformers: what they stand for, and what is made of their metadata."""

from __future__ import annotations

import json
import math
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import umbel
from tests.models.dense import dense_logits
from tests.models.test_decoder import random_prompts, reference_logits
from tests.parameters import few_of
from tests.tiny_models import make_model
from umbel import LLM
from umbel.errors import ModelError, UmbelError
from umbel.models.decoder import Decoder
from umbel.models.digest import hash_model
from umbel.models.families import read_spec, resolve_model
from umbel.models.weights import StoredWeights, load_weights

pytest.importorskip("gguf", reason="gguf is not installed here")
gguf_models = import_module("tests.gguf_models")  # behind the check, as it needs the package
make_gguf = gguf_models.make_gguf

WIDE = {
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
}
KINDS = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS")
FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "mixtral", "qwen3_moe")
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", few_of(FAMILIES[:2], FAMILIES[2:]))
def test_weights_are_what_the_package_decodes(family: str, kind: str, tmp_path: Path):
    path = make_gguf(make_model(tmp_path / "m", family, **WIDE), tmp_path / "m.gguf", kind, tmp_path / "plain")
    wanted = load_weights(tmp_path / "plain", read_spec(tmp_path / "plain"), torch.float32)
    got = load_weights(path, read_spec(path), torch.float32)
    assert got.keys() == wanted.keys()
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("family", few_of(FAMILIES[::2], FAMILIES[1::2]))
@pytest.mark.parametrize("kind", ["Q8_0", "Q4_K"])
def test_logits_equal_transformers(family: str, kind: str, tmp_path: Path):
    path = make_gguf(make_model(tmp_path / "m", family, **WIDE), tmp_path / "m.gguf", kind, tmp_path / "plain")
    spec, prompts = read_spec(path), random_prompts((1, 17, 100))
    decoder = Decoder(spec, StoredWeights(path, spec, torch.float32))
    for prompt, expected in zip(prompts, reference_logits(tmp_path / "plain", prompts), strict=True):
        assert (dense_logits(decoder, prompt) - expected).abs().max() <= 1e-4


@pytest.mark.parametrize(
    ("family", "overrides"),
    [
        ("llama", {}),
        ("qwen2", {}),
        ("qwen3", {"head_dim": 128}),
    ],  # it reads no key_length of qwen3, whose default is 128
)
def test_transformers_reads_the_same_model(family: str, overrides: dict[str, Any], tmp_path: Path):
    """Its own reader of GGUF files, which turns queries and keys back in its own way."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate", reason="transformers reads GGUF files with accelerate only")
    path = make_gguf(make_model(tmp_path / "m", family, **overrides), tmp_path / "m.gguf", "Q8_0")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype=torch.float32)
    spec, (prompt,) = read_spec(path), random_prompts((60,))
    with torch.inference_mode():
        expected = theirs(torch.tensor([prompt])).logits[0]
    decoder = Decoder(spec, StoredWeights(path, spec, torch.float32))
    assert (dense_logits(decoder, prompt) - expected).abs().max() <= 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_the_spec_is_that_of_the_directory(family: str, tmp_path: Path):
    directory = make_model(tmp_path / "m", family, attention_bias=family in ("llama", "qwen3"))
    made, own = read_spec(make_gguf(directory, tmp_path / "m.gguf")), read_spec(directory)
    assert made.norm_eps == np.float32(own.norm_eps)
    other = {"family", "norm_eps", "bos_token_id", "eos_token_ids", "notes"}
    for name in set(type(own).__dataclass_fields__) - other:
        assert getattr(made, name) == getattr(own, name), name
    assert made.family == {"mistral": "llama"}.get(family, family)


def test_ends_are_all_that_the_file_names(tmp_path: Path):
    path = make_gguf(make_model(tmp_path / "m"), tmp_path / "m.gguf", **{"tokenizer.ggml.eot_token_id": 7})
    assert read_spec(path).eos_token_ids == (2, 7)


def test_notes_say_what_is_dequantised(tmp_path: Path):
    path = make_gguf(make_model(tmp_path / "m", **WIDE), tmp_path / "m.gguf", "Q4_K")
    (note,) = read_spec(path).notes
    assert "Q4_K are dequantised" in note
    assert read_spec(path).dtype == "bfloat16"


def test_factors_of_llama_3_are_recognised(tmp_path: Path):
    directory = make_model(tmp_path / "m", rope_scaling=LLAMA3, head_dim=64, rope_theta=500_000.0)
    factors = llama3_factors(64, 500_000.0)
    path = with_factors(directory, tmp_path / "m.gguf", factors)
    assert read_spec(path).layers == read_spec(directory).layers
    other = with_factors(directory, tmp_path / "other.gguf", factors + 0.5)
    with pytest.raises(ModelError, match=r"rope_freqs\.weight: these are not the factors of Llama 3"):
        read_spec(other)


def llama3_factors(size: int, theta: float) -> np.ndarray:
    """The numbers that llama.cpp's converter writes for Llama 3, one by one."""
    found = []
    for i in range(0, size, 2):
        length = 2 * math.pi * theta ** (i / size)
        smooth = (8192 / length - 1.0) / (4.0 - 1.0)
        found.append(1.0 if length < 8192 / 4 else 8.0 if length > 8192 else 1 / ((1 - smooth) / 8.0 + smooth))
    return np.array(found, np.float32)


def with_factors(directory: Path, target: Path, factors: np.ndarray) -> Path:
    config = json.loads((directory / "config.json").read_text())
    tensors = gguf_models.of_llama_cpp(gguf_models.load_file(directory / "model.safetensors"), config)
    stored = {name: (tensor, "F32") for name, tensor in (tensors | {"rope_freqs.weight": factors}).items()}
    return gguf_models.write_gguf(target, "llama", gguf_models.model_values(config, "llama"), stored)


def test_yarn_positions(tmp_path: Path):
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
    directory = make_model(tmp_path / "m", rope_scaling=scaling)
    names = {"type": "yarn", "factor": 4.0, "original_context_length": 128}
    stated = {f"llama.rope.scaling.{name}": value for name, value in names.items()}
    spec = read_spec(make_gguf(directory, tmp_path / "m.gguf", **stated))
    assert spec.layers == read_spec(directory).layers


def test_linear_positions(tmp_path: Path):
    directory = make_model(tmp_path / "m", rope_scaling={"rope_type": "linear", "factor": 4.0})
    scaling = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    spec = read_spec(make_gguf(directory, tmp_path / "m.gguf", **scaling))
    assert (spec.layers, spec.max_positions) == (read_spec(directory).layers, 2048)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "key": ({"llama.logit_scale": 0.5}, r"llama.logit_scale=0.5: this key is not known"),
    "values": ({"llama.attention.value_length": 8}, r"attention.value_length=8: must be that of keys, 16"),
    "no heads": ({"llama.attention.head_count": 0}, r"attention.head_count must be whole numbers"),
    "heads by layer": ({"llama.attention.head_count": [4, 4]}, r"attention.head_count must be whole"),
    "no layers": ({"llama.block_count": None}, r"num_hidden_layers=None: must be a whole number"),
    "layers": ({"llama.block_count": 2**30}, r"num_hidden_layers=1073741824: must be a whole number"),
    "yarn without factor": (
        {"llama.rope.scaling.type": "yarn"},
        r"rope.scaling.type='yarn' without rope.scaling.factor",
    ),
    "adapter": ({"general.type": "adapter"}, r"general.type='adapter': this file is no model"),
    "part": ({"split.count": 3}, r"this is a part of 3: join them"),
    "larger": ({"llama.feed_forward_length": 200}, r"ffn_gate|gate_proj"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_understood_is_refused(name: str, tmp_path: Path):
    metadata, message = REFUSED[name]
    path = make_gguf(make_model(tmp_path / "m"), tmp_path / "m.gguf", **metadata)
    with pytest.raises(ModelError, match=message) as caught:
        load_weights(path, read_spec(path), torch.float32)
    assert "m.gguf" in str(caught.value)


def test_another_architecture_is_refused_by_name(tmp_path: Path):
    path = gguf_models.write_gguf(tmp_path / "m.gguf", "bert", {}, {"x": (np.zeros((2, 2), np.float32), "F32")})
    with pytest.raises(ModelError, match=r"m\.gguf: general.architecture='bert': must be one of llama, "):
        read_spec(path)


def test_types_that_are_not_read_are_refused_by_name(tmp_path: Path):
    path = make_gguf(make_model(tmp_path / "m", **WIDE), tmp_path / "m.gguf", "TQ2_0")
    with pytest.raises(ModelError, match=r"m\.gguf: weights in TQ2_0 cannot be read: only F32, "):
        read_spec(path)


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path):
    path = make_gguf(make_model(tmp_path / "m", **WIDE), tmp_path / "m.gguf", "Q8_0")
    tensor = gguf_models.gguf.GGUFReader(path, "r+").tensors[3]
    tensor.data[0, :2] = 0xFF  # of a block's scale: not a number
    with pytest.raises(ModelError, match="NaN or infinite"):
        load_weights(path, read_spec(path), torch.float32)


def test_a_file_that_is_cut_off_while_it_is_read_is_named(tmp_path: Path):
    path = make_gguf(make_model(tmp_path / "m"), tmp_path / "m.gguf")
    weights = StoredWeights(path, read_spec(path), torch.float32)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(ModelError, match=r"m\.gguf changed while it was read"):
        dict(weights)


def test_answers_are_those_of_the_directory(tmp_path: Path):
    """Through the public API: text, a chat, and the ends that stop them."""
    directory = make_model(tmp_path / "m")
    path = make_gguf(directory, tmp_path / "m.gguf", **{"tokenizer.ggml.eos_token_id": 0})
    prompts, chat = ["Once upon a time", "the dog reads"], [{"role": "user", "content": "the report?"}]
    given, made = (LLM(str(model), dtype="float32") for model in (directory, path))
    assert [o.outputs[0].text for o in made.generate(prompts)] == [o.outputs[0].text for o in given.generate(prompts)]
    assert made.chat([chat])[0].outputs[0].text == given.chat([chat])[0].outputs[0].text


def test_other_files_are_no_models(tmp_path: Path):
    (tmp_path / "m.bin").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"m\.bin' is no \.gguf file"):
        resolve_model(str(tmp_path / "m.bin"))


def test_a_directory_with_one_file_is_that_file(tmp_path: Path):
    directory = make_model(tmp_path / "m")
    path = make_gguf(directory, tmp_path / "m.gguf")
    assert resolve_model(str(tmp_path)) == path
    make_gguf(directory, tmp_path / "other.gguf")
    with pytest.raises(ModelError, match=r"2 models \(m\.gguf, other\.gguf\): give one of the files"):
        resolve_model(str(tmp_path))


def test_a_directory_without_safetensors_says_that_the_file_is_a_model(tmp_path: Path):
    directory = make_model(tmp_path / "m")
    make_gguf(directory, directory / "m.gguf")
    (directory / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"for the weights of m\.gguf give that file as the model"):
        load_weights(directory, read_spec(directory), torch.float32)


def test_the_fingerprint_is_of_the_content(tmp_path: Path):
    one = make_gguf(make_model(tmp_path / "m"), tmp_path / "one.gguf")
    other = tmp_path / "other.gguf"
    other.write_bytes(one.read_bytes())
    assert hash_model(one) == hash_model(other)
    other.write_bytes(one.read_bytes()[:-1] + b"\x01")
    assert hash_model(one) != hash_model(other)


def test_a_job_resumes_and_refuses_another_file(tmp_path: Path):
    path = make_gguf(make_model(tmp_path / "m"), tmp_path / "m.gguf")
    rows = [{"prompt": f"report {i}", "max_tokens": 3, "temperature": 0} for i in range(4)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = {"model": str(path), "dtype": "float32"}
    first = umbel.run(tmp_path / "in.jsonl", tmp_path / "out.jsonl", **asked)
    again = umbel.run(tmp_path / "in.jsonl", tmp_path / "out.jsonl", **asked)
    assert (first.ok, again.ok, again.resumed) == (4, 4, 4)
    make_gguf(make_model(tmp_path / "n", seed=1), path)
    with pytest.raises(UmbelError, match=r"model\.gguf"):
        umbel.run(tmp_path / "in.jsonl", tmp_path / "out.jsonl", **asked)


def test_a_missing_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = make_gguf(make_model(tmp_path / "m"), tmp_path / "m.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ModelError, match=r"pip install 'umbel\[gguf\]'"):
        read_spec(path)


def test_a_header_is_read_once_and_again_after_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of a large vocabulary it takes a second, and spec, tokenizer and weights each ask for it."""
    from umbel.models.sources import gguf_file

    reads, read = [], gguf_file.read_gguf
    monkeypatch.setattr(gguf_file, "read_gguf", lambda path: reads.append(path) or read(path))
    path = make_gguf(make_model(tmp_path / "m", "llama"), tmp_path / "m.gguf")
    first = StoredWeights(path, read_spec(path), torch.float32)["embed"]
    assert len(reads) == 1
    make_gguf(make_model(tmp_path / "other", "llama", seed=7), tmp_path / "m.gguf")
    assert not torch.equal(StoredWeights(path, read_spec(path), torch.float32)["embed"], first)
    assert len(reads) == 2
