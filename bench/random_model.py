"""Writes a model of random bfloat16 weights in a public shape: `python bench/random_model.py OUT [--shape qwen3-0.6b]`.

For measuring speed, which does not depend on what weights say. Comes with a byte-level tokenizer of 32,000 entries,
trained on Python's own library, because some engines do not load without one.
"""

from __future__ import annotations

import argparse
import sysconfig
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, PreTrainedTokenizerFast, Qwen3Config

SHAPES = {
    "qwen3-0.6b": Qwen3Config(
        hidden_size=1024, num_hidden_layers=28, num_attention_heads=16, num_key_value_heads=8, head_dim=128,
        intermediate_size=3072, vocab_size=151936, max_position_embeddings=40960, rms_norm_eps=1e-6, rope_theta=1e6,
        tie_word_embeddings=True, bos_token_id=0, eos_token_id=1, pad_token_id=2,
    ),
    "smollm2-135m": LlamaConfig(
        hidden_size=576, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3, head_dim=64,
        intermediate_size=1536, vocab_size=49152, max_position_embeddings=8192, rms_norm_eps=1e-5, rope_theta=1e5,
        tie_word_embeddings=True, bos_token_id=0, eos_token_id=1, pad_token_id=2,
    ),
}  # fmt: skip
VOCABULARY = 32_000


def tokenizer() -> PreTrainedTokenizerFast:
    """Trained here; filled up so that all its ids decode."""
    found = Tokenizer(models.BPE())
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    files = sorted(str(path) for path in Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<bos>", "<eos>", "<pad>"]
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet)
    found.train(files, trainer)
    found.add_tokens([f"<fill{i}>" for i in range(found.get_vocab_size(), VOCABULARY)])
    return PreTrainedTokenizerFast(tokenizer_object=found, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>")


def main() -> None:
    """Norms are ones, everything else is drawn from N(0, 0.02)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="qwen3-0.6b")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    model = AutoModelForCausalLM.from_config(SHAPES[asked.shape], dtype=torch.float32)
    draw = torch.Generator().manual_seed(asked.seed)
    with torch.no_grad():
        for weights in model.parameters():
            weights.fill_(1.0) if weights.dim() == 1 else weights.normal_(0.0, 0.02, generator=draw)
    model = model.to(torch.bfloat16)
    model.generation_config = GenerationConfig(bos_token_id=0, eos_token_id=1, pad_token_id=2)
    model.save_pretrained(asked.out, max_shard_size="100GB")
    tokenizer().save_pretrained(asked.out)


if __name__ == "__main__":
    main()
