"""Shards of weights put side by side are the weights, each number once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.mixtures import PLAIN, make_mixture
from tests.tiny_models import FAMILIES, make_model
from umbel.models.families import read_spec
from umbel.models.layout import layout
from umbel.models.shards import Shard, ShardedWeights, shard_spec
from umbel.models.weights import StoredWeights


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "qwen3_moe", "mixtral", "qwen2_moe", "dots1"])
@pytest.mark.parametrize("count", [1, 2])
def test_shards_make_up_the_whole(tmp_path: Path, family: str, count: int) -> None:
    make, sizes = (make_model, {}) if family in FAMILIES else (make_mixture, PLAIN[family])
    directory = make(tmp_path / family, family, **sizes)
    spec = read_spec(directory)
    whole = StoredWeights(directory, spec, torch.float32)
    shards = [ShardedWeights(whole, spec, Shard(rank, count)) for rank in range(count)]
    small = shard_spec(spec, count)
    expected = {name: sum(p.filled[0] for p in parts) for name, parts in layout(small).items()}
    q, kv = (n * small.head_dim for n in (small.n_heads, small.n_kv_heads))
    for name in whole:
        parts, kind = [shard[name] for shard in shards], name.rsplit(".", 1)[-1]
        if kind in ("qkv", "qkv_bias"):
            assert all(len(part) == q + 2 * kv == expected[name] for part in parts)
            pieces = zip(*(part.split((q, kv, kv)) for part in parts), strict=True)
            joined = torch.cat([torch.cat(piece) for piece in pieces])
        elif kind in ("gate_up", "shared_gate_up"):
            joined = torch.cat([torch.cat(half) for half in zip(*(part.chunk(2) for part in parts), strict=True)])
        elif kind == "experts_gate_up":
            each = [part.view(2 * spec.experts.count, -1, part.shape[1]) for part in parts]
            joined = torch.cat(each, 1).view(whole[name].shape)
        elif kind in ("o", "down", "experts_down", "shared_down"):
            assert all(part.is_contiguous() for part in parts)
            joined = torch.cat(parts, 1)
        else:
            assert all(torch.equal(part, parts[0]) for part in parts)
            joined = parts[0]
        assert torch.equal(joined, whole[name]), name


def test_a_bias_behind_a_sum_is_added_once(tmp_path: Path) -> None:
    spec = read_spec(make_model(tmp_path / "llama", "llama"))
    bias = {"layers.0.o_bias": torch.ones(4), "layers.0.down_bias": torch.ones(4)}
    total = [sum(ShardedWeights(bias, spec, Shard(rank, 2))[name] for rank in range(2)) for name in bias]
    assert all(torch.equal(t, torch.ones(4)) for t in total)
