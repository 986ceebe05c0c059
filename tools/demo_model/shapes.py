"""Shapes of the demo model and its draft, and how fresh weights are drawn."""

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

COMMON = {
    "vocab_size": 2592,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
    "head_dim": 64,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": 3,
    "attention_dropout": 0.0,
    "use_cache": True,
}
SIZES = {
    "main": {
        "hidden_size": 256,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 640,
    },
    "draft": {
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 320,
    },
}


BASE = 10000.0


def fresh(size, seed=0, base=BASE):
    """A newly initialised model whose blocks start as the identity; `base` is of the rotary positions."""
    torch.manual_seed(seed)
    config = Qwen3Config(**COMMON, rope_theta=base, **SIZES[size], architectures=["Qwen3ForCausalLM"])
    config._attn_implementation = "sdpa"
    model = Qwen3ForCausalLM(config)
    for name, p in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            torch.nn.init.zeros_(p)
    return model


@torch.no_grad()
def borrow_embedding(model, rows):
    """Start the token table from the leading directions of another's table [vocabulary, width], at half its scale.

    Half, because a fresh model repeats its input at first, and would do so with too much confidence.
    """
    own = model.model.embed_tokens.weight
    u, sigma, _ = torch.linalg.svd(rows.float(), full_matrices=False)
    lead = u[:, : own.shape[1]] * sigma[: own.shape[1]]
    own.copy_(0.5 * lead * rows.float().std() / lead.std())
