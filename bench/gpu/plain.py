"""A decoder-only transformer in few words, for checks: float32, one prompt at a time, nothing kept between tokens.

It shares no code with the package: it reads config.json and model.safetensors itself, and knows the families llama,
mistral, qwen2 and qwen3 without windows and without stretched rotary angles.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor


class PlainModel:
    """One model directory, on the processor."""

    def __init__(self, directory: Path):
        self.config: dict[str, Any] = json.loads((directory / "config.json").read_text())
        self.weights = {name: t.float() for name, t in load_file(directory / "model.safetensors").items()}

    @torch.inference_mode()
    def logits(self, tokens: Sequence[int]) -> Tensor:
        """The logits at each of `tokens`: `[tokens, vocab]`."""
        x = self.weights["model.embed_tokens.weight"][torch.tensor(tokens)]
        for layer in range(self.config["num_hidden_layers"]):
            name = f"model.layers.{layer}."
            x = x + self._attention(name + "self_attn.", self._norm(x, name + "input_layernorm"))
            y = self._norm(x, name + "post_attention_layernorm")
            gate, up = (self._product(y, f"{name}mlp.{part}_proj") for part in ("gate", "up"))
            x = x + self._product(gate * torch.sigmoid(gate) * up, name + "mlp.down_proj")
        head = self.weights.get("lm_head.weight", self.weights["model.embed_tokens.weight"])
        return self._norm(x, "model.norm") @ head.T

    def greedy(self, prompt: Sequence[int], n: int) -> tuple[list[int], list[float]]:
        """The next `n` tokens, and by how much each one's logit leads the next best one's."""
        ids, leads = list(prompt), []
        for _ in range(n):
            best = self.logits(ids)[-1].topk(2)
            ids.append(int(best.indices[0]))
            leads.append(float(best.values[0] - best.values[1]))
        return ids[len(prompt) :], leads

    def _product(self, x: Tensor, name: str) -> Tensor:
        product = x @ self.weights[f"{name}.weight"].T
        bias = self.weights.get(f"{name}.bias")
        return product if bias is None else product + bias

    def _norm(self, x: Tensor, name: str) -> Tensor:
        scale = (x.pow(2).mean(-1, keepdim=True) + self.config["rms_norm_eps"]).rsqrt()
        return x * scale * self.weights[f"{name}.weight"]

    def _attention(self, name: str, x: Tensor) -> Tensor:
        n, n_heads, n_kv = len(x), self.config["num_attention_heads"], self.config["num_key_value_heads"]
        dim = self.config.get("head_dim") or self.config["hidden_size"] // n_heads
        q, k, v = (self._product(x, f"{name}{part}_proj").view(n, -1, dim) for part in "qkv")
        if f"{name}q_norm.weight" in self.weights:
            q, k = self._norm(q, name + "q_norm"), self._norm(k, name + "k_norm")
        q, k = self._turn(q), self._turn(k)
        k, v = (t.repeat_interleave(n_heads // n_kv, 1) for t in (k, v))
        scores = torch.einsum("ihd,jhd->hij", q, k) * dim**-0.5
        later = torch.ones(n, n, dtype=torch.bool).triu(1)
        weights = scores.masked_fill(later, -torch.inf).softmax(-1)
        return self._product(torch.einsum("hij,jhd->ihd", weights, v).reshape(n, -1), name + "o_proj")

    def _turn(self, x: Tensor) -> Tensor:
        """Rotary positions: pairs (i, i + dim / 2)."""
        n, _, dim = x.shape
        theta = self.config.get("rope_theta", 10000.0)
        angle = torch.arange(n)[:, None] / theta ** (torch.arange(0, dim, 2) / dim)
        cos, sin = angle.cos()[:, None], angle.sin()[:, None]
        a, b = x.chunk(2, -1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)
