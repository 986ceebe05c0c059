"""The decoder against transformers (float32, eager), and against itself: a row does not know its neighbours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models.dense import DenseAttention, dense_logits, forward, greedy
from tests.tiny_models import make_model
from umbel.kernels.native.calls import INSTRUCTION_SETS
from umbel.kernels.native.products import has_products
from umbel.linear.packed import PackedMethod
from umbel.models.decoder import Decoder
from umbel.models.families import read_spec
from umbel.models.weights import StoredWeights

SHARED_MODELS = Path(__file__).parents[3] / "shared" / "data" / "models"
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama3-rope": ("llama", {"rope_scaling": LLAMA3_ROPE}),
    "llama-linear-rope": ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5e4}}),
    "llama-biased-tied": ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "qwen2-tied": ("qwen2", {}),
    "qwen2-window": ("qwen2", {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 0}),
    "qwen3": ("qwen3", {}),
    "qwen3-tied": ("qwen3", {"tie_word_embeddings": True, "num_key_value_heads": 1}),
    "mistral": ("mistral", {}),
    "mistral-window": ("mistral", {"sliding_window": 16}),
    "qwen3-moe": ("qwen3_moe", {}),
    "qwen3-moe-as-it-falls": ("qwen3_moe", {"norm_topk_prob": False, "tie_word_embeddings": True}),
    "qwen3-moe-some-dense": ("qwen3_moe", {"num_hidden_layers": 4, "decoder_sparse_step": 2, "mlp_only_layers": [1]}),
    "qwen3-moe-window": ("qwen3_moe", {"use_sliding_window": True, "sliding_window": 16}),
    "mixtral": ("mixtral", {}),
    "mixtral-one-expert-each": ("mixtral", {"num_experts_per_tok": 1, "num_local_experts": 16}),
}
LENGTHS = (1, 2, 15, 16, 17, 100)


def load(directory: Path, dtype: torch.dtype = torch.float32, *, packed: bool = False) -> Decoder:
    spec = read_spec(directory)
    if packed and not (INSTRUCTION_SETS and has_products(dtype, INSTRUCTION_SETS[0])):
        pytest.skip(f"the processor does not multiply in {dtype} by compiled kernels, or nothing was compiled")
    method = PackedMethod(INSTRUCTION_SETS[0], dtype) if packed else None
    return Decoder(spec, StoredWeights(directory, spec, dtype), method=method)


def reference_logits(
    directory: Path, prompts: list[list[int]], dtype: torch.dtype = torch.float32
) -> list[torch.Tensor]:
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, attn_implementation="eager", dtype=dtype)
    with torch.inference_mode():
        return [model(torch.tensor([prompt])).logits[0].float() for prompt in prompts]


class OwnKeys(DenseAttention):
    """Each row's attention is its own key times its own value, so that rows meet in nothing but the calls."""

    def __init__(self, decoder: Decoder, rows: int):
        super().__init__(decoder.spec, decoder.dtype)
        self.begin(torch.arange(rows))

    def attend(self, layer: int, q: torch.Tensor, select: None = None, sinks: None = None) -> torch.Tensor:
        keys, values = (t.transpose(0, 1) for t in self.store.read(layer, self.slots))
        return q + (keys * values).repeat_interleave(self.spec.kv_shape(0).group_size, 1)


def random_prompts(lengths: tuple[int, ...], seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 300, (n,), generator=generator).tolist() for n in lengths]


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_equal_transformers(name: str, tmp_path: Path):
    family, overrides = VARIANTS[name]
    make_model(tmp_path, family, **overrides)
    decoder, prompts = load(tmp_path), random_prompts(LENGTHS)
    for prompt, expected in zip(prompts, reference_logits(tmp_path, prompts), strict=True):
        logits = dense_logits(decoder, prompt)
        assert logits.dtype == torch.float32
        assert (logits - expected).abs().max() <= 1e-4


@pytest.mark.parametrize("packed", [False, True], ids=["torch", "packed"])
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_bfloat16_agrees_on_the_best_token(family: str, packed: bool, tmp_path: Path):
    make_model(tmp_path, family)
    (prompt,) = random_prompts((200,))
    (expected,) = reference_logits(tmp_path, [prompt], torch.bfloat16)
    logits = dense_logits(load(tmp_path, torch.bfloat16, packed=packed), prompt)
    gap = expected.topk(2).values.diff().abs().squeeze(-1)
    differ = logits.argmax(-1) != expected.argmax(-1)
    assert differ.sum() <= 4
    assert (gap[differ] <= 0.1).all()


@pytest.mark.parametrize("packed", [False, True], ids=["torch", "packed"])
@pytest.mark.parametrize("family", ["qwen3_moe", "mixtral"])
def test_bfloat16_of_experts_is_as_near_the_truth_as_transformers(family: str, packed: bool, tmp_path: Path):
    """Token by token they differ more than other families: where two experts are almost equally likely, the last bit
    of a router decides which of them speaks."""
    make_model(tmp_path, family)
    (prompt,) = random_prompts((200,))
    (truth,), (theirs,) = (reference_logits(tmp_path, [prompt], kind) for kind in (torch.float32, torch.bfloat16))
    ours = dense_logits(load(tmp_path, torch.bfloat16, packed=packed), prompt)
    assert (ours - truth).abs().mean() <= 1.25 * (theirs - truth).abs().mean()


@pytest.mark.parametrize(
    ("name", "threads", "dtype"),
    [
        ("llama-biased-tied", 1, torch.float32),
        ("qwen3", 1, torch.float32),
        ("mistral", 2, torch.float32),
        ("llama-biased-tied", 1, torch.bfloat16),
        ("qwen3", 2, torch.bfloat16),
        ("qwen3-moe", 1, torch.float32),
        ("mixtral", 2, torch.float32),
        ("qwen3-moe", 1, torch.bfloat16),
    ],
    ids=str,
)
def test_a_row_does_not_depend_on_its_neighbours_to_the_last_bit(
    name: str, threads: int, dtype: torch.dtype, tmp_path: Path
):
    family, overrides = VARIANTS[name]
    decoder = load(make_model(tmp_path, family, **overrides), dtype, packed=dtype == torch.bfloat16)
    torch.set_num_threads(threads)
    (tokens,) = random_prompts((300,), seed=1)
    positions = torch.arange(300) * 7 % 500

    def run(begin: int, end: int) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = decoder.embed(torch.tensor(tokens[begin:end]), positions[begin:end])
        hidden = decoder.forward(hidden, decoder.batch(positions[begin:end]), OwnKeys(decoder, end - begin))
        return hidden, decoder.logits(hidden)

    with torch.inference_mode():
        hidden, logits = run(0, 300)
        # Two threads take long on a busy machine, so they get fewer sizes.
        for size in (1, 2, 3, 5, 8, 11, 12, 15, 16, 17, 33, 64, 299) if threads == 1 else (1, 6, 11, 299):
            for begin in (0, 1, 300 - size):
                part, part_logits = run(begin, begin + size)
                assert torch.equal(part, hidden[begin : begin + size]), (size, begin)
                assert torch.equal(part_logits, logits[begin : begin + size]), (size, begin)


def test_layers_can_run_in_groups_and_prompts_in_chunks(tmp_path: Path):
    decoder = load(make_model(tmp_path, "qwen3", num_hidden_layers=3))
    (tokens,) = random_prompts((50,))
    expected = dense_logits(decoder, tokens)
    attention, logits = DenseAttention(decoder.spec), []
    with torch.inference_mode():
        for begin in range(0, 50, 16):
            ids = torch.tensor(tokens[begin : begin + 16])
            positions = torch.arange(begin, begin + len(ids))
            attention.begin(positions)
            batch = decoder.batch(positions)
            hidden = decoder.forward(decoder.embed(ids, positions), batch, attention, range(1))
            hidden = decoder.forward(hidden, batch, attention, range(1, 3))
            logits.append(decoder.logits(hidden))
    assert (torch.cat(logits) - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("name", ["stories260K", "tinystories-656k"])
def test_golden_greedy_tokens_of_a_trained_model(name: str):
    directory = SHARED_MODELS / name
    if not directory.is_dir():
        pytest.skip(f"{directory} is not on this machine")
    decoder = load(directory)
    rows = [json.loads(line) for line in (directory / "golden_greedy.jsonl").read_text().splitlines()][:12]
    for row in rows:
        found = greedy(decoder, row["prompt_ids"], len(row["output_ids"]))
        for got, expected, margin in zip(found, row["output_ids"], row["margins"], strict=True):
            if got != expected:
                assert margin <= 1e-3, (row["prompt"], got, expected)
                break


def test_bfloat16_checkpoint_holds_the_values_of_its_float32_twin():
    if not SHARED_MODELS.is_dir():
        pytest.skip(f"{SHARED_MODELS} is not on this machine")
    one, other = load(SHARED_MODELS / "tinystories-656k"), load(SHARED_MODELS / "tinystories-656k-bf16")
    assert torch.equal(one.embedding.weight, other.embedding.weight)
    assert torch.equal(one.layers[1].block.gate_up.weight, other.layers[1].block.gate_up.weight)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
def test_rows_that_are_wanted_are_the_same_without_the_others(layers: int, packed: bool, tmp_path: Path):
    dtype = torch.bfloat16 if packed else torch.float32
    decoder = load(make_model(tmp_path, "qwen3", num_hidden_layers=layers), dtype, packed=packed)
    (tokens,) = random_prompts((50,))
    ids, positions = torch.tensor(tokens), torch.arange(50)
    with torch.inference_mode():
        all_rows = forward(decoder, ids, positions, DenseAttention(decoder.spec, dtype))
        for rows in ([], [49], [0, 7, 31, 32, 48], range(50)):
            wanted = torch.tensor(list(rows), dtype=torch.int64)
            some = forward(decoder, ids, positions, DenseAttention(decoder.spec, dtype), wanted)
            assert torch.equal(some, all_rows[wanted])
            assert torch.equal(decoder.logits(some), decoder.logits(all_rows)[wanted])
