"""Trains what SwiftKV needs of a model (arXiv 2410.03960), for `--technique swiftkv`.

    python -m tools.swift_kv --out DIR [JOB.jsonl] [--model demo] [--layers 0.5] [--minutes 4]

All tokens pass the first layers; one norm of the state there, and projections of their own, give the keys and values of
the later layers. The model itself is the teacher, and nothing of it changes: what is trained are the queries', keys'
and values' projections of the later layers and that norm, by the divergence of the next token's distribution at every
position of prompts and the model's own answers. They begin as the model's own, so that training can only gain. Without
a job the prompts are those of the demo model's tasks. One prompt in eight is held out: the figures are the shares of
their answers, drawn greedily by the engine, that are dense's to the last token. Needs transformers, for models whose
layers are those of Llama or Qwen3, without biases.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from umbel.api import LLM
from umbel.demo.tasks import addition, copying, extract, labels, lookup, passages
from umbel.errors import UsageError
from umbel.ir.params import SamplingParams
from umbel.models.families import resolve_model

HELD_OUT = 8  # one prompt of so many
PROMPT_WEIGHT = 0.05  # of positions from which no answer is drawn
TOGETHER = 4  # texts that one update sees
SIZES = (40, 200, 600, 1200)  # tokens that demo prompts have, about
GREEDY = SamplingParams(temperature=0.0, max_tokens=64)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Shares of held-out answers that are dense's: with the model's own weights, and with trained ones."""

    before: float
    after: float


class Student:
    """The later layers of a model (`first` on) with projections of their own, of which only these are trained."""

    def __init__(self, model: PreTrainedModel, first: int):
        self.model, self.first, self.later = model, first, list(model.model.layers[first:])
        if any(layer.self_attn.q_proj.bias is not None for layer in self.later):
            raise UsageError("projections with biases: SwiftKV's have none here")
        shared = self.later[0].input_layernorm.weight.detach()
        self.norm = shared.clone().requires_grad_()
        self.projections = [
            [(p.weight.detach() * scale).clone().requires_grad_() for p, scale in zip(_of(layer), scales, strict=True)]
            for layer in self.later
            for scales in [(1.0, *[layer.input_layernorm.weight.detach() / shared] * 2)]
        ]

    @property
    def trained(self) -> list[Tensor]:
        """What is trained."""
        return [self.norm, *(weight for each in self.projections for weight in each)]

    def logits(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The student's and the teacher's logits at every position of a text (`[tokens]`): `[tokens, vocab]` each."""
        with torch.no_grad():
            found = self.model(ids[None], output_hidden_states=True)
        state = found.hidden_states[self.first][0]
        rotation = self.model.model.rotary_emb(state[None], torch.arange(len(ids))[None])
        shared = _norm(state, self.norm, self.later[0].input_layernorm)
        for layer, weights in zip(self.later, self.projections, strict=True):
            state = _passed(layer, state, shared, weights, rotation)
        return self.model.lm_head(self.model.model.norm(state)), found.logits[0]

    def named(self, prefix: str = "model.") -> dict[str, Tensor]:
        """What was trained, under the names of ArcticInference."""
        found = {f"{prefix}norm_swiftkv.weight": self.norm}
        for layer, weights in enumerate(self.projections, self.first):
            for part, weight in zip("qkv", weights, strict=True):
                found[f"{prefix}layers.{layer}.self_attn.{part}_proj_swiftkv.weight"] = weight
        return {name: tensor.detach().contiguous() for name, tensor in found.items()}


def _of(layer: torch.nn.Module) -> tuple[torch.nn.Linear, ...]:
    attention = layer.self_attn
    return attention.q_proj, attention.k_proj, attention.v_proj


def _norm(x: Tensor, weight: Tensor, like: torch.nn.Module) -> Tensor:
    """RMSNorm with another weight."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + like.variance_epsilon) * weight


def _passed(
    layer: torch.nn.Module, state: Tensor, shared: Tensor, weights: Sequence[Tensor], rotation: tuple[Tensor, Tensor]
) -> Tensor:
    """The states of a text behind a layer (`[tokens, hidden]`), whose keys and values are made of `shared`."""
    attention, own = layer.self_attn, layer.input_layernorm(state)
    q, k, v = (
        F.linear(x, weight).unflatten(-1, (-1, attention.head_dim)).transpose(0, 1)[None]
        for x, weight in zip((own, shared, shared), weights, strict=True)
    )
    if hasattr(attention, "q_norm"):
        q, k = attention.q_norm(q), attention.k_norm(k)
    q, k = _turned(q, rotation), _turned(k, rotation)
    seen = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    state = state + attention.o_proj(seen[0].transpose(0, 1).flatten(1))
    return state + layer.mlp(layer.post_attention_layernorm(state))


def _turned(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    first, second = x.chunk(2, -1)
    cos, sin = (angles[:, None] for angles in rotation)
    return x * cos + torch.cat((-second, first), -1) * sin


def demo_prompts(count: int, seed: int) -> list[dict[str, object]]:
    """Prompts of the demo model's tasks, of several lengths."""
    rng = random.Random(seed)
    kinds = (labels, copying, addition, extract, lookup, lookup, lookup, passages)
    asked = (rng.choice(kinds).item(rng, "train", rng.choice(SIZES)).prompt for _ in range(count))
    return [{"messages": [{"role": "user", "content": text}]} for text in asked]


def job_prompts(job: Path) -> list[dict[str, object]]:
    """Prompts of a job."""
    rows = [json.loads(line) for line in job.read_text(encoding="utf-8").splitlines() if line.strip()]
    bodies = [row.get("body", row) for row in rows]
    return [{name: body[name]} for body in bodies for name in ("messages", "prompt") if name in body]


Pair = tuple[list[int], list[int]]


def answers(model: str, prompts: Sequence[object], technique: str = "") -> list[Pair]:
    """Each prompt and what the engine answers, as token ids."""
    asked = {"technique": technique, "allow_lossy": True} if technique else {}
    with LLM(model, dtype="float32", **asked) as llm:
        outputs = llm.generate(list(prompts), GREEDY)
    return [(output.prompt_token_ids, list(output.outputs[0].token_ids)) for output in outputs]


def shuffled(pairs: Sequence[Pair], seed: int) -> Iterator[Pair]:
    """Prompts with their answers in random order, without end."""
    noise = torch.Generator().manual_seed(seed)
    while True:
        yield from (pairs[i] for i in torch.randperm(len(pairs), generator=noise).tolist())


def divergence(student: Student, prompt: list[int], answer: list[int]) -> Tensor:
    """The divergence of the student's next tokens from the teacher's, the mean over all positions of a text, in which
    those that answers are drawn from have more weight."""
    mine, theirs = (logits.log_softmax(-1) for logits in student.logits(torch.tensor(prompt + answer)))
    weights = torch.ones(len(mine))
    weights[: len(prompt) - 1] = PROMPT_WEIGHT
    each = F.kl_div(mine, theirs, log_target=True, reduction="none").sum(-1)
    return (each * weights).sum() / weights.sum()


def train(student: Student, pairs: Sequence[Pair], seconds: float, rate: float, seed: int) -> list[float]:
    """Teach for so many seconds, the rate falling to nothing; gives the mean divergence of each update."""
    optimiser, began, losses = torch.optim.AdamW(student.trained, rate, weight_decay=0.0), time.monotonic(), []
    source = shuffled(pairs, seed)
    while (spent := (time.monotonic() - began) / seconds) < 1:
        optimiser.param_groups[0]["lr"] = rate * min(len(losses) / 10 + 0.1, 1 - spent)
        total = 0.0
        for _ in range(TOGETHER):
            loss = divergence(student, *next(source)) / TOGETHER
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(student.trained, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        losses.append(total)
        if len(losses) % 20 == 1:
            print(f"update {len(losses):>5}: divergence {total:.4f}", flush=True)
    return losses


def load_teacher(source: Path) -> PreTrainedModel:
    """The model, of which nothing is trained."""
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, use_safetensors=True).eval()
    return model.requires_grad_(False)


def save(student: Student, source: Path, out: Path) -> None:
    """Write the model with what was trained beside its own weights."""
    shutil.copytree(source, out, dirs_exist_ok=True)
    tensors = load_file(source / "model.safetensors")
    kind = next(iter(tensors.values())).dtype
    more = {name: tensor.to(kind) for name, tensor in student.named().items()}
    save_file({**tensors, **more}, out / "model.safetensors", metadata={"format": "pt"})


def main(given: Sequence[str] | None = None) -> Agreement:
    """Read the command line, train, print the figures; returns them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", type=Path, nargs="?", help="JSON lines with prompts, as for `umbel run`")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model with what was trained")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--layers", type=float, default=0.5, help="the share of layers that all tokens pass")
    parser.add_argument("--minutes", type=float, default=4, help="of training")
    parser.add_argument("--rate", type=float, default=1e-3, help="highest learning rate")
    parser.add_argument("--prompts", type=int, default=600, help="of the demo model's tasks, where no job is given")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(given)
    source, technique = resolve_model(asked.model), f"swiftkv:layers={asked.layers}"
    prompts = demo_prompts(asked.prompts, asked.seed) if asked.job is None else job_prompts(asked.job)
    dense = answers(str(source), prompts)
    held = range(0, len(prompts), HELD_OUT)
    model = load_teacher(source)
    student = Student(model, max(1, round(asked.layers * model.config.num_hidden_layers)))
    pairs = [pair for i, pair in enumerate(dense) if i not in held]
    losses = train(student, pairs, asked.minutes * 60, asked.rate, asked.seed)
    save(student, source, asked.out)

    def agreement(folder: Path) -> float:
        found = answers(str(folder), [prompts[i] for i in held], technique)
        return sum(one[1] == dense[i][1] for i, one in zip(held, found, strict=True)) / len(held)

    figures = Agreement(agreement(source), agreement(asked.out))
    print(f"{len(losses)} updates; of {len(held)} answers held out dense's are: {figures.before:.0%} before, "
          f"{figures.after:.0%} after")  # fmt: skip
    return figures


if __name__ == "__main__":
    main()
