"""Loading: what the engine's tensors hold, and malformed directories."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tiny_models import make_model, write_tokenizer
from umbel.errors import ModelError
from umbel.models.decoder import Decoder
from umbel.models.families import read_spec
from umbel.models.weights import dummy_weights, load_weights, pick_dtype
from umbel.text.tokenizer import Tokenizer

Q_PROJ = "model.layers.0.self_attn.q_proj.weight"


def weights_file(directory: Path) -> Path:
    return directory / "model.safetensors"


def edit_header(directory: Path, change: Callable[[dict[str, Any]], object], padding: bytes = b"") -> None:
    """Rewrite the header after `change`, leaving the data as it is."""
    raw = weights_file(directory).read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode() + padding
    weights_file(directory).write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + size :])


def raw_header(text: bytes, length: int | None = None) -> Callable[[Path], None]:
    """Replace the whole file by a header of the given bytes (and the length it claims)."""
    claimed = len(text) if length is None else length
    return lambda directory: weights_file(directory).write_bytes(claimed.to_bytes(8, "little") + text) and None


def header_field(name: str, value: Any) -> Callable[[Path], None]:
    return lambda directory: edit_header(directory, lambda header: header[Q_PROJ].__setitem__(name, value))


def header_offsets(begin: int, end: int) -> Callable[[Path], None]:
    """Move both ends of one tensor's range."""

    def change(header: dict[str, Any]) -> None:
        first, last = header[Q_PROJ]["data_offsets"]
        header[Q_PROJ]["data_offsets"] = [first + begin, last + end]

    return lambda directory: edit_header(directory, change)


def change_tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def apply(directory: Path) -> None:
        tensors = load_file(weights_file(directory))
        change(tensors)
        save_file(tensors, weights_file(directory))

    return apply


def config_value(key: str, value: Any) -> Callable[[Path], None]:
    def apply(directory: Path) -> None:
        config = json.loads((directory / "config.json").read_text())
        (directory / "config.json").write_text(json.dumps(config | {key: value}))

    return apply


def template(text: str) -> Callable[[Path], None]:
    return lambda directory: write_tokenizer(directory, text)


def keep_only_bin(directory: Path) -> None:
    weights_file(directory).rename(directory / "pytorch_model.bin")


def lose_a_shard(directory: Path) -> None:
    names = list(load_file(weights_file(directory)))
    weights_file(directory).rename(directory / "model-00001-of-00002.safetensors")
    shards = {name: f"model-0000{1 + (name == Q_PROJ)}-of-00002.safetensors" for name in names}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))


def shard_outside(directory: Path) -> None:
    lose_a_shard(directory)
    shards = {Q_PROJ: "../secret.safetensors"}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))


def cut(directory: Path) -> None:
    raw = weights_file(directory).read_bytes()
    weights_file(directory).write_bytes(raw[: len(raw) // 2])


def shrink_the_vocabulary(directory: Path) -> None:
    config_value("vocab_size", 200)(directory)
    config_value("eos_token_id", 1)(directory)


def append(extra: bytes) -> Callable[[Path], None]:
    return lambda directory: weights_file(directory).write_bytes(weights_file(directory).read_bytes() + extra) and None


MALFORMED: dict[str, tuple[Callable[[Path], None], str]] = {
    "1 header longer than the file": (raw_header(b'{"a":1}', 5000), "header of"),
    "2 header over 100 MB": (raw_header(b"{}", 2**40), "limit of this model"),
    "3 header does not start with a brace": (raw_header(b' {"a":1}'), "must start with"),
    "4 header is not JSON": (raw_header(b"{nope}  "), "not JSON"),
    "4 header is not UTF-8": (raw_header(b'{"\xff": 1}'), "not JSON in UTF-8"),
    "4 header nested without end": (raw_header(b'{"a":' * 50_000), "not JSON"),
    "5 overlapping ranges": (header_offsets(-4, -4), "overlaps"),
    "6 bytes of no tensor inside": (lambda d: edit_header(d, lambda header: header.pop(Q_PROJ)), "unused"),
    "6 bytes of no tensor at the end": (append(b"\0" * 8), "the file has"),
    "7 range past the end": (header_field("data_offsets", [2**40, 2**40 + 64 * 64 * 4]), "tensor"),
    "7 begin after end": (header_field("data_offsets", [100, 4]), "data_offsets"),
    "7 negative begin": (header_field("data_offsets", [-4, 4]), "data_offsets"),
    "8 shape and length differ": (header_field("shape", [64, 63]), "does not fill"),
    "9 product of the shape over 64 bits": (header_field("shape", [2**33, 2**33]), "does not fill"),
    "9 a size over 64 bits": (header_field("shape", [2**70]), "shape"),
    "10 unknown dtype": (header_field("dtype", "F31"), "unknown dtype"),
    "10 dtype that is no float": (header_field("dtype", "I32"), "only F16"),
    "11 NUL instead of space padding": (lambda d: edit_header(d, lambda _: None, b"\0" * 8), "padded with spaces"),
    "11 a name twice": (raw_header(b'{"a":1,"a":2}'), "twice"),
    "12 interrupted download": (cut, "not fully downloaded"),
    "12 empty file": (lambda d: weights_file(d).write_bytes(b"") and None, "too few"),
    "13 shard missing": (lose_a_shard, "00002-of-00002.safetensors"),
    "13 shard outside the directory": (shard_outside, "plain name"),
    "13 tensor missing": (change_tensors(lambda tensors: tensors.pop(Q_PROJ)), Q_PROJ),
    "13 tensor too many": (change_tensors(lambda tensors: tensors.update(extra=torch.ones(2))), "extra"),
    "14 shape is not the config's": (change_tensors(lambda t: t.update({Q_PROJ: torch.ones(64, 32)})), "config.json"),
    "15 auto_map": (config_value("auto_map", {"AutoModelForCausalLM": "evil.Model"}), "auto_map"),
    "15 attention code": (config_value("_attn_implementation_internal", "evil/kernel"), "attention code"),
    "16 only pickled weights": (keep_only_bin, "save_pretrained"),
    "18 tokenizer ids beyond the embedding": (shrink_the_vocabulary, "belong together"),
    "19 NaN": (change_tensors(lambda tensors: tensors[Q_PROJ].__setitem__((3, 5), float("nan"))), Q_PROJ),
    "19 infinite": (change_tensors(lambda tensors: tensors[Q_PROJ].__setitem__((3, 5), float("-inf"))), Q_PROJ),
    "20 a billion layers": (config_value("num_hidden_layers", 10**9), "num_hidden_layers"),
    "20 heads of size 0": (config_value("head_dim", 0), "head_dim"),
    "20 vocabulary of 2**40": (config_value("vocab_size", 2**40), "vocab_size"),
}


def open_model(directory: Path) -> None:
    """What every run does before its first token."""
    spec = read_spec(directory)
    tokenizer = Tokenizer.load(directory)
    tokenizer.check_fits(spec.vocab_size)
    load_weights(directory, spec, torch.float32)


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_directory_is_refused(name: str, tmp_path: Path):
    spoil, named = MALFORMED[name]
    make_model(tmp_path)
    open_model(tmp_path)
    spoil(tmp_path)
    with pytest.raises(ModelError, match=named):
        open_model(tmp_path)


EXPERT = "model.layers.1.mlp.experts.7.up_proj.weight"
MALFORMED_EXPERTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "an expert missing": (change_tensors(lambda t: t.pop(EXPERT)), EXPERT),
    "an expert too many": (
        change_tensors(lambda t: t.update({EXPERT.replace("7", "8"): torch.ones(40, 64)})),
        "experts.8",
    ),
    "fewer experts than there are": (config_value("num_experts", 7), r"\[8, 64\], config\.json makes it \[7, 64\]"),
    "a router missing": (change_tensors(lambda t: t.pop("model.layers.0.mlp.gate.weight")), r"mlp\.gate\.weight"),
    "a router of other experts": (
        change_tensors(lambda t: t.update({"model.layers.0.mlp.gate.weight": torch.ones(7, 64)})),
        r"\[7, 64\], config\.json makes it \[8, 64\]",
    ),
    "an expert of another width": (change_tensors(lambda t: t.update({EXPERT: torch.ones(39, 64)})), r"\[40, 64\]"),
    "an expert that is not finite": (change_tensors(lambda t: t[EXPERT].__setitem__((3, 5), float("nan"))), EXPERT),
    "a layer that is said to be dense": (config_value("mlp_only_layers", [1]), r"layers\.1\.mlp\.gate_proj"),
}


@pytest.mark.parametrize("name", MALFORMED_EXPERTS)
def test_malformed_experts_are_refused(name: str, tmp_path: Path):
    spoil, named = MALFORMED_EXPERTS[name]
    make_model(tmp_path, "qwen3_moe")
    open_model(tmp_path)
    spoil(tmp_path)
    with pytest.raises(ModelError, match=named):
        open_model(tmp_path)


def test_experts_are_stacked_gate_and_up_side_by_side(tmp_path: Path):
    stored, spec = load_file(weights_file(make_model(tmp_path, "mixtral"))), read_spec(tmp_path)
    weights = load_weights(tmp_path, spec, torch.float32)
    gate_up = weights["layers.1.experts_gate_up"].view(4, 2, 48, 64)
    down = weights["layers.1.experts_down"].view(4, 64, 48)
    for i in range(4):
        name = f"model.layers.1.block_sparse_moe.experts.{i}."
        w1, w2, w3 = (stored[f"{name}w{n}.weight"] for n in (1, 2, 3))
        assert torch.equal(gate_up[i, 0], w1) and torch.equal(gate_up[i, 1], w3) and torch.equal(down[i], w2)
    block = Decoder(spec, weights).layers[1].block
    stack = weights["layers.1.experts_down"].untyped_storage().data_ptr()
    assert all(down.weight.untyped_storage().data_ptr() == stack for _, down in block.products.pairs)  # no copies


def test_sharded_checkpoint_equals_the_single_file(tmp_path: Path):
    single = make_model(tmp_path / "a", "qwen3")
    sharded = make_model(tmp_path / "b", "qwen3")
    tensors = load_file(weights_file(sharded))
    weights_file(sharded).unlink()
    shards = {name: f"part-{i % 3}.safetensors" for i, name in enumerate(tensors)}
    for shard in set(shards.values()):
        save_file({name: tensors[name] for name in tensors if shards[name] == shard}, sharded / shard)
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    spec = read_spec(single)
    one, other = (load_weights(directory, spec, torch.float32) for directory in (single, sharded))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("stored", ["model.embed_tokens.weight", "lm_head.weight"])
def test_tied_embeddings_under_either_name(stored: str, tmp_path: Path):
    make_model(tmp_path, "qwen2")
    tensors = load_file(weights_file(tmp_path))
    embedding = tensors.pop("model.embed_tokens.weight")
    save_file(
        tensors | {stored: embedding, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)},
        weights_file(tmp_path),
    )
    spec = read_spec(tmp_path)
    decoder = Decoder(spec, load_weights(tmp_path, spec, torch.float32))
    assert decoder.head is decoder.embedding
    assert torch.equal(decoder.embedding.rows(torch.arange(len(embedding))), embedding)


def test_stacked_matrices_and_conversion(tmp_path: Path):
    make_model(tmp_path, "mistral")
    stored, spec = load_file(weights_file(tmp_path)), read_spec(tmp_path)
    weights = load_weights(tmp_path, spec, torch.bfloat16)
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    parts = [stored[f"model.layers.1.self_attn.{name}_proj.weight"] for name in "qkv"]
    assert torch.equal(weights["layers.1.qkv"], torch.cat(parts).to(torch.bfloat16))


def test_dummy_weights_are_seeded_and_make_a_decoder(tmp_path: Path):
    spec = read_spec(make_model(tmp_path, "qwen2", attention_bias=False))
    one, again, other = (dummy_weights(spec, torch.float32, seed) for seed in (1, 1, 2))
    assert one.keys() == load_weights(tmp_path, spec, torch.float32).keys()
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["embed"], other["embed"])
    assert 0.018 < float(one["embed"].std()) < 0.022
    assert float(one["norm"].min()) == float(one["layers.0.attn_norm"].max()) == 1.0
    Decoder(spec, one)


def test_dtype_follows_the_request_then_the_checkpoint_where_the_device_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    spec = read_spec(make_model(tmp_path, torch_dtype="bfloat16"))
    assert pick_dtype("float32", spec, "cuda") == torch.float32
    assert pick_dtype("bfloat16", spec, "cpu") == torch.bfloat16
    assert pick_dtype("auto", spec, "cuda") == torch.bfloat16
    for native, expected in ((False, torch.float32), (True, torch.bfloat16)):
        monkeypatch.setattr("umbel.cost.machine._has_bfloat16", lambda native=native: native)
        assert pick_dtype("auto", spec, "cpu") == expected
