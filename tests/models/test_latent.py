"""Latent attention against that of transformers in float32, and that a row's bits depend on nothing else."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch import Tensor
from transformers.models.deepseek_v2 import modeling_deepseek_v2 as v2
from transformers.models.deepseek_v3 import modeling_deepseek_v3 as v3

from tests.attention.stage import BACKENDS, CAN, mixed_spec, poisoned_store, steps_of
from tests.sched.drive import Job
from umbel.attention.reference import ReferenceAttention
from umbel.ir.latent import Latent
from umbel.ir.layer import Rope
from umbel.kv.store import KVStore
from umbel.linear.dense import DenseMethod
from umbel.models.latent import LatentWeights, convert_latent
from umbel.models.rotary import inverse_frequencies, rotary_angles

HEADS, LENGTH, EPS, THETA = 4, 150, 1e-6, 10000.0
FAMILIES = {"v2": (v2.DeepseekV2Attention, "DeepseekV2Config"), "v3": (v3.DeepseekV3Attention, "DeepseekV3Config")}


def attention_of(family: str, q_rank: int | None) -> tuple[torch.nn.Module, Latent]:
    """A layer of transformers with random weights, and its sizes."""
    make, config_class = FAMILIES[family]
    latent = Latent(kv_rank=40, rope_dim=16, plain_dim=24, value_dim=20, q_rank=q_rank)
    config = getattr(transformers, config_class)(
        hidden_size=64, num_attention_heads=HEADS, num_key_value_heads=HEADS, q_lora_rank=q_rank, kv_lora_rank=40,
        qk_rope_head_dim=16, qk_nope_head_dim=24, v_head_dim=20, rms_norm_eps=EPS, rope_theta=THETA,
        attn_implementation="eager",
    )  # fmt: skip
    torch.manual_seed(3)
    layer = make(config, 0).eval()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, 1.0 if parameter.ndim == 1 else 0.0, 0.2)
    return layer, latent


def weights_of(layer: torch.nn.Module) -> LatentWeights:
    """Its tensors as a checkpoint has them."""
    named = {name: tensor.detach() for name, tensor in layer.named_parameters()}
    first = named["q_a_proj.weight" if "q_a_proj.weight" in named else "q_proj.weight"]
    return LatentWeights(
        torch.cat((first, named["kv_a_proj_with_mqa.weight"])), named["kv_b_proj.weight"],
        named["kv_a_layernorm.weight"], named["o_proj.weight"], named.get("q_b_proj.weight"),
        named.get("q_a_layernorm.weight"),
    )  # fmt: skip


def wanted(layer: torch.nn.Module, family: str, hidden: Tensor) -> Tensor:
    """What transformers makes of one sequence (`[tokens, hidden]`)."""
    module = v2 if family == "v2" else v3
    rotary = getattr(module, f"Deepseek{family.upper()}RotaryEmbedding")(layer.config)
    positions = torch.arange(len(hidden))[None]
    mask = torch.full((1, 1, len(hidden), len(hidden)), -torch.inf).triu(1)
    return layer(hidden[None], position_embeddings=rotary(hidden[None], positions), attention_mask=mask)[0][0]


def outputs(layer: torch.nn.Module, latent: Latent, hidden: Tensor, name: str, chunk: int) -> Tensor:
    """What our layer makes of one sequence, so many tokens at a time."""
    rope = Rope(interleaved=True)
    qkv, heads, output = convert_latent(weights_of(layer), latent, rope, EPS, DenseMethod())
    job, spec = Job([[1] * len(hidden)], [1], [1]), mixed_spec(latent.kv_shape(HEADS))
    store = poisoned_store(spec, job.demand(16), 16)
    backend = ReferenceAttention(spec, store) if name == "reference" else BACKENDS[name](spec, store)
    found = torch.empty_like(hidden)
    for _, step in steps_of(job, job.demand(16), 16, chunk):
        backend.prepare(step)
        positions = torch.from_numpy(step.positions)
        angles = rotary_angles(positions, inverse_frequencies(rope, THETA, latent.rope_dim), torch.float32)
        q = heads.place(qkv.apply(hidden[positions]), angles, backend.place(0))
        found[positions] = output.apply(backend.attend(0, q).flatten(1))
    return found


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
@pytest.mark.parametrize("q_rank", [None, 28])
@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_it_is_that_of_transformers(family: str, q_rank: int | None, backend: str) -> None:
    layer, latent = attention_of(family, q_rank)
    hidden = torch.randn(LENGTH, 64, generator=torch.Generator().manual_seed(1))
    expected = wanted(layer, family, hidden)
    assert expected.abs().max() > 1
    torch.testing.assert_close(outputs(layer, latent, hidden, backend, 40), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("backend", [name for name in BACKENDS if CAN[name].reproducible == "per row"])
@torch.inference_mode()
def test_chunks_change_no_bit(backend: str) -> None:
    layer, latent = attention_of("v3", 28)
    hidden = torch.randn(LENGTH, 64, generator=torch.Generator().manual_seed(2))
    whole = outputs(layer, latent, hidden, backend, 1000)
    for chunk in (1, 7, 64):
        assert torch.equal(outputs(layer, latent, hidden, backend, chunk), whole)


@torch.inference_mode()
def test_a_token_takes_its_latent_and_what_turns() -> None:
    layer, latent = attention_of("v2", None)
    shape = latent.kv_shape(HEADS)
    assert (shape.stored_numbers, shape.n_kv_heads, shape.group_size) == (40 + 16, 1, HEADS)
    assert shape.scale == pytest.approx(layer.scaling)
    store = KVStore(mixed_spec(shape), 3, 16, torch.bfloat16, torch.device("cpu"))
    assert store.n_bytes == 4 * 16 * 56 * 2
