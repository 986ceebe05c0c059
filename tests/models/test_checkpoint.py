"""Which tensors of a checkpoint count: a head of its own, shards that contradict each other, headers without end."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.models.test_model_keys import equal, our_logits, their_logits
from tests.tiny_models import FAMILIES, make_model
from umbel.errors import ModelError
from umbel.models.checkpoint import INDEX_FILE, SINGLE_FILE
from umbel.models.families import read_spec
from umbel.models.weights import StoredWeights, load_weights

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def change_tensors(directory: Path, **changed: Tensor | None) -> None:
    """Put tensors (names with __ for dots) into the only file of a checkpoint, or take them out."""
    tensors = load_file(directory / SINGLE_FILE)
    for name, tensor in changed.items():
        tensors.pop(name.replace("__", "."), None)
        if tensor is not None:
            tensors[name.replace("__", ".")] = tensor
    save_file(tensors, directory / SINGLE_FILE, metadata={"format": "pt"})


def shard(directory: Path, files: Mapping[str, Mapping[str, Tensor]], index: Mapping[str, str]) -> None:
    (directory / SINGLE_FILE).unlink()
    for name, tensors in files.items():
        save_file(dict(tensors), directory / name)
    (directory / INDEX_FILE).write_text(json.dumps({"metadata": {}, "weight_map": dict(index)}))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_head_that_is_not_the_embedding_is_used_and_named(family: str, tmp_path: Path):
    make_model(tmp_path, family, tie_word_embeddings=True)
    tied = our_logits(tmp_path)
    change_tensors(tmp_path, lm_head__weight=torch.randn(300, 64, generator=torch.Generator().manual_seed(1)) * 0.2)
    spec = read_spec(tmp_path)
    assert not spec.tied_embeddings
    assert len([note for note in spec.notes if "lm_head.weight is not the embedding" in note]) == 1
    assert equal(our_logits(tmp_path), their_logits(tmp_path))
    assert not equal(our_logits(tmp_path), tied)


def test_a_head_that_equals_the_embedding_stays_tied(tmp_path: Path):
    make_model(tmp_path, tie_word_embeddings=True)
    change_tensors(tmp_path, lm_head__weight=load_file(tmp_path / SINGLE_FILE)[EMBEDDING].clone())
    assert (read_spec(tmp_path).tied_embeddings, read_spec(tmp_path).notes) == (True, ())
    assert "head" not in load_weights(tmp_path, read_spec(tmp_path), torch.float32)
    change_tensors(tmp_path, lm_head__weight=None)
    assert read_spec(tmp_path).tied_embeddings


def test_a_head_that_differs_in_the_last_value_or_in_its_type(tmp_path: Path):
    make_model(tmp_path, tie_word_embeddings=True)
    head = load_file(tmp_path / SINGLE_FILE)[EMBEDDING].clone()
    head[-1, -1] += 1
    change_tensors(tmp_path, lm_head__weight=head)
    assert not read_spec(tmp_path).tied_embeddings
    change_tensors(tmp_path, lm_head__weight=head.bfloat16())
    assert equal(our_logits(tmp_path), their_logits(tmp_path))


def test_a_head_of_another_shape_is_refused(tmp_path: Path):
    make_model(tmp_path, tie_word_embeddings=True)
    change_tensors(tmp_path, lm_head__weight=torch.ones(299, 64))
    with pytest.raises(ModelError, match=r"lm_head.weight is \[299, 64\], config.json makes it \[300, 64\]"):
        load_weights(tmp_path, read_spec(tmp_path), torch.float32)


def test_a_model_that_is_not_tied_needs_its_head(tmp_path: Path):
    make_model(tmp_path)
    change_tensors(tmp_path, lm_head__weight=None)
    with pytest.raises(ModelError, match=r"1 tensors missing, first lm_head.weight"):
        load_weights(tmp_path, read_spec(tmp_path), torch.float32)


def test_a_spec_needs_no_weights(tmp_path: Path):
    make_model(tmp_path, tie_word_embeddings=True)
    (tmp_path / SINGLE_FILE).write_bytes(b"damaged")
    assert read_spec(tmp_path).tied_embeddings
    (tmp_path / SINGLE_FILE).unlink()
    assert read_spec(tmp_path).tied_embeddings


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path):
    make_model(tmp_path)
    tensors, a, b = load_file(tmp_path / SINGLE_FILE), "a.safetensors", "b.safetensors"
    index = {name: b if name == HEAD else a for name in tensors}
    shard(tmp_path, {a: tensors, b: {HEAD: torch.ones(300, 64)}}, index)
    with pytest.raises(ModelError, match=r"tensor 'lm_head.weight' is in a.safetensors, .* has it in b.safetensors"):
        load_weights(tmp_path, read_spec(tmp_path), torch.float32)


def test_a_tensor_in_another_shard_than_the_index_says_is_refused(tmp_path: Path):
    make_model(tmp_path)
    tensors, a, b = load_file(tmp_path / SINGLE_FILE), "a.safetensors", "b.safetensors"
    index = {name: b if name == HEAD else a for name in tensors}
    files = {
        a: {name: tensor for name, tensor in tensors.items() if name != EMBEDDING},
        b: {EMBEDDING: tensors[EMBEDDING]},
    }
    shard(tmp_path, files, index)
    with pytest.raises(ModelError, match=rf"{INDEX_FILE} has it in"):
        load_weights(tmp_path, read_spec(tmp_path), torch.float32)


def test_a_tensor_that_the_index_does_not_name_counts_as_in_transformers(tmp_path: Path):
    """transformers reads every tensor of the files that the index names."""
    make_model(tmp_path)
    tensors, a = load_file(tmp_path / SINGLE_FILE), "a.safetensors"
    shard(tmp_path, {a: tensors}, {name: a for name in tensors if name != HEAD})
    assert equal(our_logits(tmp_path), their_logits(tmp_path))
    shard_with_more = tensors | {"surplus": torch.ones(1)}
    save_file(shard_with_more, tmp_path / a)
    with pytest.raises(ModelError, match="unexpected tensors, first 'surplus'"):
        load_weights(tmp_path, read_spec(tmp_path), torch.float32)


def test_a_single_file_comes_before_an_index_as_in_transformers(tmp_path: Path):
    make_model(tmp_path)
    (tmp_path / INDEX_FILE).write_text(json.dumps({"weight_map": {HEAD: "none.safetensors"}}))
    (tmp_path / "consolidated.safetensors").write_bytes(b"not read")
    assert equal(our_logits(tmp_path), their_logits(tmp_path))


@pytest.mark.parametrize("name", [SINGLE_FILE, INDEX_FILE])
def test_a_header_of_more_tensors_than_the_model_can_have_is_not_parsed(name: str, tmp_path: Path):
    make_model(tmp_path)
    spec = read_spec(tmp_path)
    (tmp_path / SINGLE_FILE).unlink()
    if name == SINGLE_FILE:
        empty = ",".join(f'"t{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for i in range(120_000))
        header = f"{{{empty}}}".encode()
        (tmp_path / name).write_bytes(len(header).to_bytes(8, "little") + header)
    else:
        (tmp_path / name).write_text(
            json.dumps({"weight_map": {f"tensor.{i}": "a.safetensors" for i in range(150_000)}})
        )
    tracemalloc.start()
    with pytest.raises(ModelError, match=f"{name}.*bytes"):
        load_weights(tmp_path, spec, torch.float32)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_a_file_that_is_cut_off_while_it_is_read_is_named(tmp_path: Path):
    weights = StoredWeights(make_model(tmp_path), read_spec(tmp_path), torch.float32)
    path = tmp_path / SINGLE_FILE
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(ModelError, match=rf"{SINGLE_FILE} changed while it was read"):
        dict(weights)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_file_that_is_written_to_while_it_is_read_is_named(dtype: torch.dtype, tmp_path: Path):
    weights = StoredWeights(make_model(tmp_path), read_spec(tmp_path), dtype)
    path = tmp_path / SINGLE_FILE
    assert weights["norm"].dtype == dtype
    with path.open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"\0\0\0\0")
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    with pytest.raises(ModelError, match=rf"{SINGLE_FILE} changed while it was read"):
        weights["norm"]


def test_a_file_that_is_replaced_while_it_is_read_is_read_to_its_end(tmp_path: Path):
    before = load_weights(make_model(tmp_path / "a"), read_spec(tmp_path / "a"), torch.float32)
    weights = StoredWeights(tmp_path / "a", read_spec(tmp_path / "a"), torch.float32)
    other = make_model(tmp_path / "b", seed=5) / SINGLE_FILE
    other.rename(tmp_path / "a" / SINGLE_FILE)
    assert all(torch.equal(weights[name], before[name]) for name in before)
