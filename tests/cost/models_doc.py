"""Writes docs/models.md, the memory that known models take: `python -m tests.cost.models_doc`.

The settings are those of each model's published config.json; the reader of model directories reads them, and what the
planner counts is what stands on the page.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from umbel.cost.cards import named
from umbel.cost.shape import Shape
from umbel.ir.spec import ModelSpec
from umbel.models.families import FAMILIES, read_spec

DOC = Path(__file__).parents[2] / "docs" / "models.md"
HEAD = """# Models, and the memory they take

A model is `demo` (shipped, 5 million parameters), a directory: config.json, tokenizer, *.safetensors, a GGUF file
([checkpoints](checkpoints.md)), or a hub id such as `Qwen/Qwen3-0.6B`. These `model_type`s run, besides
[others](model_types.md): {families}.
[Every key](model_keys.md) of a config.json is obeyed, named or refused; other architectures are refused before anything
is loaded. The chat template comes from the model.

Memory is weights and *KV*: the keys and values of every token of a prompt or an answer that is still read. KV is what
limits how many rows run together. Of the memory that weights leave, plans take {cpu:.0%} for KV on a processor, which
others use too, and {gpu:.0%} on a GPU. The last columns say how many tokens that is in so many free GB (10⁹ bytes),
with weights and KV in bfloat16; `umbel plan` has the figure for your machine, your dtype and your rows.

| model | parameters | weights, bfloat16 | float32 | KV of a token | tokens, processor 16 GB | GPU 24 GB | GPU 80 GB |
| --- | --: | --: | --: | --: | --: | --: | --: |
"""
TAIL = """
What to make of it:

- **float32 doubles all of it.** It is what a processor without products in bfloat16 uses, unless `--dtype bfloat16`
  asks for half of it (`umbel doctor` says how fast both are). A laptop with 16 GB free holds a model of 4 billion
  parameters in bfloat16, or one of 2 billion in float32, and the KV of many rows.
- **A thousand rows need no thousand contexts.** What prompts share is held once; a row's pages go back when it ends.
  The plan's `kv peak` is the number that counts.
- **Mixtures of experts** hold all parameters and compute a part: much memory, little arithmetic.
- **Weights in 4 bits** (GPTQ, AWQ, compressed-tensors) take a quarter on a GPU; a CPU keeps them as floats,
  unless `--linear int4` is asked for, which is lossy there ([int4](int4.md)).
- `--kv-cache-dtype int8` (on GPUs `fp8`) and `--linear int8` halve one or the other, and change answers.

To see it for a model that you do not have yet, a directory with its config.json and tokenizer is enough:
`umbel plan FILE --model DIRECTORY` needs no weights.

Made by `python -m tests.cost.models_doc` from the settings of each model's config.json.
"""
PLACES = (("this", 16), ("h200", 24), ("h200", 80))
"""A machine whose share of memory for KV counts, and free GB, for each of the last columns."""
QWEN3 = {"model_type": "qwen3", "head_dim": 128, "num_key_value_heads": 8, "vocab_size": 151936}
QWEN3_MOE = QWEN3 | {"model_type": "qwen3_moe", "num_key_value_heads": 4, "num_experts": 128, "num_experts_per_tok": 8}
QWEN2 = {"model_type": "qwen2", "vocab_size": 151936}
LLAMA3 = {"model_type": "llama", "num_key_value_heads": 8, "vocab_size": 128256}
LAYERS = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads")


def _config(base: Mapping[str, Any], layers: tuple[int, int, int, int], **more: Any) -> dict[str, Any]:
    common = {"rms_norm_eps": 1e-6, "hidden_act": "silu", "max_position_embeddings": 32768, "dtype": "bfloat16"}
    return common | dict(base) | dict(zip(LAYERS, layers, strict=True)) | more


KNOWN: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "Qwen/Qwen3-0.6B": _config(QWEN3, (28, 1024, 3072, 16), tie_word_embeddings=True),
        "Qwen/Qwen3-1.7B": _config(QWEN3, (28, 2048, 6144, 16), tie_word_embeddings=True),
        "Qwen/Qwen3-4B": _config(QWEN3, (36, 2560, 9728, 32), tie_word_embeddings=True),
        "Qwen/Qwen3-8B": _config(QWEN3, (36, 4096, 12288, 32)),
        "Qwen/Qwen3-14B": _config(QWEN3, (40, 5120, 17408, 40)),
        "Qwen/Qwen3-32B": _config(QWEN3, (64, 5120, 25600, 64)),
        "Qwen/Qwen3-30B-A3B": _config(QWEN3_MOE, (48, 2048, 6144, 32), moe_intermediate_size=768, norm_topk_prob=True),
        "Qwen/Qwen2.5-0.5B-Instruct": _config(
            QWEN2, (24, 896, 4864, 14), num_key_value_heads=2, tie_word_embeddings=True
        ),
        "Qwen/Qwen2.5-1.5B-Instruct": _config(
            QWEN2, (28, 1536, 8960, 12), num_key_value_heads=2, tie_word_embeddings=True
        ),
        "Qwen/Qwen2.5-7B-Instruct": _config(QWEN2, (28, 3584, 18944, 28), num_key_value_heads=4, vocab_size=152064),
        "meta-llama/Llama-3.2-1B-Instruct": _config(
            LLAMA3, (16, 2048, 8192, 32), head_dim=64, tie_word_embeddings=True
        ),
        "meta-llama/Llama-3.2-3B-Instruct": _config(
            LLAMA3, (28, 3072, 8192, 24), head_dim=128, tie_word_embeddings=True
        ),
        "meta-llama/Llama-3.1-8B-Instruct": _config(LLAMA3, (32, 4096, 14336, 32)),
        "meta-llama/Llama-3.1-70B-Instruct": _config(LLAMA3, (80, 8192, 28672, 64)),
        "mistralai/Mistral-7B-Instruct-v0.3": _config(
            {"model_type": "mistral", "num_key_value_heads": 8, "vocab_size": 32768}, (32, 4096, 14336, 32)
        ),
        "mistralai/Mixtral-8x7B-Instruct-v0.1": _config(
            {"model_type": "mixtral", "num_key_value_heads": 8, "vocab_size": 32000},
            (32, 4096, 14336, 32),
            num_local_experts=8,
            num_experts_per_tok=2,
        ),
        "HuggingFaceTB/SmolLM2-135M-Instruct": _config(
            {"model_type": "llama", "num_key_value_heads": 3, "vocab_size": 49152},
            (30, 576, 1536, 9),
            tie_word_embeddings=True,
        ),
    }
)


def document() -> str:
    """The whole page."""
    families = ", ".join(f"`{name}`" for name in FAMILIES)
    by_size = sorted(specs().items(), key=lambda one: Shape.of(one[1], "bfloat16").weight_bytes)
    rows = [_row(name, spec) for name, spec in by_size]
    return HEAD.format(families=families, cpu=_share("this"), gpu=_share("h200")) + "".join(rows) + TAIL


def specs() -> dict[str, ModelSpec]:
    """The specs of the known models, as read from a directory with their config.json."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, config in KNOWN.items():
            Path(folder, "config.json").write_text(json.dumps(config))
            found[name] = read_spec(Path(folder))
    return found


def parameters(spec: ModelSpec) -> int:
    """How many numbers a model's weights are."""
    return Shape.of(spec, "bfloat16").weight_bytes // 2


def _row(name: str, spec: ModelSpec) -> str:
    shape = Shape.of(spec, "bfloat16")
    room = [_tokens((gb * 10**9 - shape.weight_bytes) * _share(place) / shape.kv_bytes) for place, gb in PLACES]
    weights = f"{_gb(shape.weight_bytes)} | {_gb(2 * shape.weight_bytes)}"
    kv = f"{shape.kv_bytes / 1024:.0f} KiB"
    return f"| {name} | {_count(parameters(spec))} | {weights} | {kv} | {' | '.join(room)} |\n"


def _share(machine: str) -> float:
    return named(machine).kv_fraction


def _count(number: float) -> str:
    return f"{number / 1e9:.2f} billion" if number >= 1e9 else f"{number / 1e6:.0f} million"


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _tokens(number: float) -> str:
    return "-" if number < 1000 else f"{number // 1000:,.0f} thousand"


if __name__ == "__main__":
    DOC.write_text(document(), encoding="utf-8")
