"""A decoder in plain torch of which later layers take keys and values from an earlier state, one prompt at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

EPS, THETA = 1e-5, 10_000.0


class NaiveDecoder:
    """Qwen3's layers from a directory. `layers_of(position)` says which layers a token passes; what it leaves in the
    others: from layer `cut` on, keys and values of its state there, where a cut is given."""

    def __init__(self, directory: Path, cut: int | None = None):
        self.config = json.loads((directory / "config.json").read_text())
        self.named = {name: tensor.float() for name, tensor in load_file(directory / "model.safetensors").items()}
        self.cut = self.config["num_hidden_layers"] if cut is None else cut
        self.weights: list[Tensor] = []  # of the last query of each layer that ran, `[heads, keys]`
        self.is_trained = any("swiftkv" in name for name in self.named)

    def logits(self, ids: list[int]) -> Tensor:
        """Logits behind the last of some tokens, all others of which pass the first layers only: `[vocab]`."""
        hidden = self.named["model.embed_tokens.weight"][torch.tensor(ids)]
        for layer in range(self.cut):
            hidden = self._layer(layer, hidden, hidden)
        left, hidden = hidden, hidden[-1:]
        for layer in range(self.cut, self.config["num_hidden_layers"]):
            hidden = self._layer(layer, hidden, left)
        return self._norm(hidden, self.named["model.norm.weight"])[0] @ self.named["lm_head.weight"].T

    def reading(self, ids: list[int], positions: list[int]) -> Tensor:
        """Logits behind the last of some tokens that stand at these positions."""
        hidden, at = self.named["model.embed_tokens.weight"][torch.tensor(ids)], torch.tensor(positions)
        for layer in range(self.config["num_hidden_layers"]):
            hidden = self._layer(layer, hidden, hidden, at)
        return self._norm(hidden[-1], self.named["model.norm.weight"]) @ self.named["lm_head.weight"].T

    def greedy(self, ids: list[int], count: int) -> tuple[list[int], list[float]]:
        """So many tokens, and the log-probability of each."""
        found, drawn = [], list(ids)
        for _ in range(count):
            scores = self.logits(drawn).log_softmax(0)
            drawn.append(int(scores.argmax()))
            found.append(float(scores.max()))
        return drawn[len(ids) :], found

    def skipping(self, ids: list[int], layers_of: Callable[[int], Iterable[int]]) -> Tensor:
        """The same where a token passes `layers_of(position)` alone, and jumps over the others."""
        inputs: list[list[Tensor]] = [[] for _ in range(self.config["num_hidden_layers"])]
        for position, token in enumerate(ids):
            state = self.named["model.embed_tokens.weight"][token]
            for layer in layers_of(position):
                inputs[layer].append(state)
                assert len(inputs[layer]) == position + 1  # tokens before it passed the layer
                state = self._layer(layer, state[None], torch.stack(inputs[layer]))[0]
        return self._norm(state, self.named["model.norm.weight"]) @ self.named["lm_head.weight"].T

    def _layer(self, layer: int, hidden: Tensor, left: Tensor, at: Tensor | None = None) -> Tensor:
        """A layer for the last rows of those (`left`) that give keys and values, at these positions."""
        at = torch.arange(len(left)) if at is None else at
        prefix = f"model.layers.{layer}."
        later = layer >= self.cut
        own = self.named[prefix + "input_layernorm.weight"]
        tail = "_proj_swiftkv.weight" if later and self.is_trained else "_proj.weight"
        shared = self.named["model.norm_swiftkv.weight"] if later and self.is_trained else own
        q, k, v = (
            F.linear(self._norm(x, norm), self.named[f"{prefix}self_attn.{part}{tail}"])
            for part, x, norm in (("q", hidden, own), ("k", left, shared), ("v", left, shared))
        )
        dim = self.config["head_dim"]
        q, k, v = (each.unflatten(1, (-1, dim)) for each in (q, k, v))
        q, k = (
            self._turned(self._norm(x, self.named[f"{prefix}self_attn.{part}_norm.weight"]), at)
            for part, x in (("q", q), ("k", k))
        )
        group = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        scores = torch.einsum("qhd,khd->hqk", q, k) * dim**-0.5
        first = len(left) - len(hidden)
        mask = torch.arange(len(left)) > torch.arange(first, len(left))[:, None]
        weights = scores.masked_fill(mask, -torch.inf).softmax(-1)
        self.weights.append(weights[:, -1])
        seen = torch.einsum("hqk,khd->qhd", weights, v).flatten(1)
        hidden = hidden + F.linear(seen, self.named[prefix + "self_attn.o_proj.weight"])
        x = self._norm(hidden, self.named[prefix + "post_attention_layernorm.weight"])
        gate, up = (F.linear(x, self.named[f"{prefix}mlp.{name}_proj.weight"]) for name in ("gate", "up"))
        return hidden + F.linear(F.silu(gate) * up, self.named[prefix + "mlp.down_proj.weight"])

    @staticmethod
    def _norm(x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, weight.shape, weight, EPS)

    @staticmethod
    def _turned(x: Tensor, positions: Tensor) -> Tensor:
        """Heads (`[rows, heads, dim]`) at the last of these positions, rotated."""
        half = x.shape[2] // 2
        radians = positions[-len(x) :, None] / THETA ** (torch.arange(half) / half)
        cos, sin = radians.cos()[:, None], radians.sin()[:, None]
        first, second = x[..., :half], x[..., half:]
        return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)
