"""Makes tiny random model directories of the supported families, as Hugging Face would save them, in milliseconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
VOCAB_SIZE = 300
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXTS = (
    "Once upon a time there was a little girl who loved to read the weather report.",
    "The quick brown fox jumps over the lazy dog, and then the dog reads the report again.",
    "Classify the text: was the answer right or wrong? Answer with one word and nothing else.",
)
BASE = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 172,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": 0,
    "torch_dtype": "float32",
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"architectures": ["LlamaForCausalLM"], "attention_bias": False, "mlp_bias": False},
    "qwen2": {"architectures": ["Qwen2ForCausalLM"], "tie_word_embeddings": True, "use_sliding_window": False},
    "qwen3": {"architectures": ["Qwen3ForCausalLM"], "head_dim": 32, "attention_bias": False},
    "mistral": {"architectures": ["MistralForCausalLM"], "head_dim": 24, "sliding_window": None},
    "mixtral": {
        "architectures": ["MixtralForCausalLM"],
        "intermediate_size": 48,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "router_aux_loss_coef": 0.02,
        "output_router_logits": False,
    },
    "qwen3_moe": {
        "architectures": ["Qwen3MoeForCausalLM"],
        "head_dim": 32,
        "attention_bias": False,
        "num_experts": 8,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 40,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "router_aux_loss_coef": 0.001,
        "output_router_logits": False,
    },
}


def make_model(directory: Path, family: str = "llama", seed: int = 0, **overrides: Any) -> Path:
    """Write config.json (with `overrides`), model.safetensors, tokenizer and chat template; gives `directory` back."""
    directory.mkdir(parents=True, exist_ok=True)
    config = BASE | {"model_type": family} | FAMILIES[family] | overrides
    (directory / "config.json").write_text(json.dumps(config))
    save_file(random_tensors(config, seed), directory / "model.safetensors", metadata={"format": "pt"})
    write_tokenizer(directory)
    return directory


def random_tensors(config: dict[str, Any], seed: int) -> dict[str, np.ndarray]:
    """Float32 tensors under Hugging Face names, so large that greedy choices are clear and norms and biases show."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in tensor_shapes(config).items():
        noise = rng.standard_normal(shape, np.float32)
        if name.endswith("norm.weight"):
            tensors[name] = 1 + 0.2 * noise
        else:
            tensors[name] = 0.3 * noise if len(shape) == 1 else noise * np.float32(1.5 * shape[1] ** -0.5)
    return tensors


def tensor_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a checkpoint, written down independently of the loader under test."""
    hidden, wide, family = config["hidden_size"], config["intermediate_size"], config["model_type"]
    head_dim = config.get("head_dim") or hidden // config["num_attention_heads"]
    q, kv = config["num_attention_heads"] * head_dim, config["num_key_value_heads"] * head_dim
    layer = {
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (q, hidden),
        "self_attn.k_proj.weight": (kv, hidden),
        "self_attn.v_proj.weight": (kv, hidden),
        "self_attn.o_proj.weight": (hidden, q),
        "mlp.gate_proj.weight": (wide, hidden),
        "mlp.up_proj.weight": (wide, hidden),
        "mlp.down_proj.weight": (hidden, wide),
    }
    if family == "qwen2" or config.get("attention_bias"):
        layer |= {"self_attn.q_proj.bias": (q,), "self_attn.k_proj.bias": (kv,), "self_attn.v_proj.bias": (kv,)}
    if config.get("attention_bias"):
        layer |= {"self_attn.o_proj.bias": (hidden,)}
    if config.get("mlp_bias"):
        layer |= {"mlp.gate_proj.bias": (wide,), "mlp.up_proj.bias": (wide,), "mlp.down_proj.bias": (hidden,)}
    if family in ("qwen3", "qwen3_moe"):
        layer |= {"self_attn.q_norm.weight": (head_dim,), "self_attn.k_norm.weight": (head_dim,)}
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config["vocab_size"], hidden),
        "model.norm.weight": (hidden,),
    }
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    for i in range(config["num_hidden_layers"]):
        own = expert_shapes(config, i)
        kept = layer if not own else {name: shape for name, shape in layer.items() if not name.startswith("mlp.")}
        shapes |= {f"model.layers.{i}.{name}": shape for name, shape in (kept | own).items()}
    return shapes


def expert_shapes(config: dict[str, Any], layer: int) -> dict[str, tuple[int, ...]]:
    """Shapes of a layer's router and experts, none where it has its own gate."""
    hidden, family = config["hidden_size"], config["model_type"]
    if family == "mixtral":
        block, count, wide = "block_sparse_moe", "num_local_experts", "intermediate_size"
        gate, up, down = "w1", "w3", "w2"
    elif family == "qwen3_moe":
        block, count, wide = "mlp", "num_experts", "moe_intermediate_size"
        gate, up, down = "gate_proj", "up_proj", "down_proj"
    else:
        return {}
    if layer in config.get("mlp_only_layers", ()) or (layer + 1) % config.get("decoder_sparse_step", 1):
        return {}
    shapes: dict[str, tuple[int, ...]] = {f"{block}.gate.weight": (config[count], hidden)}
    for i in range(config[count]):
        name = f"{block}.experts.{i}"
        shapes |= {f"{name}.{half}.weight": (config[wide], hidden) for half in (gate, up)}
        shapes[f"{name}.{down}.weight"] = (hidden, config[wide])
    return shapes


def write_tokenizer(directory: Path, chat_template: str | None = CHAT_TEMPLATE) -> None:
    """Write tokenizer.json (byte-level BPE of at most `VOCAB_SIZE` ids) and tokenizer_config.json."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE, special_tokens=list(SPECIAL_TOKENS), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 512,
    }
    template = {} if chat_template is None else {"chat_template": chat_template}
    (directory / "tokenizer_config.json").write_text(json.dumps(config | template))
