"""The oracle: Hugging Face transformers, one prompt at a time, float32, eager attention, greedy."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

NOISE = 1e-4  # top-2 gaps below this are within the oracle's own noise: the rest of such a row does not count


@dataclass(frozen=True)
class Answer:
    """Greedy ids of one prompt, up to its end token, and for each by how much its logit leads the next one's."""

    ids: list[int]
    margins: list[float]


@torch.inference_mode()
def greedy(directory: Path, prompts: Sequence[Sequence[int]], n_tokens: int, model: Any | None = None) -> list[Answer]:
    """What transformers answers to each prompt on its own; `model`: instead of the one in `directory`."""
    from transformers import AutoModelForCausalLM, GenerationConfig

    if model is None:
        model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()
    answers = []
    for prompt in prompts:
        config = GenerationConfig(
            max_new_tokens=n_tokens, do_sample=False, output_logits=True, return_dict_in_generate=True, pad_token_id=0,
        )  # fmt: skip
        ids = torch.tensor([list(prompt)])
        out = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
        top = torch.stack(out.logits)[:, 0].topk(2).values
        answers.append(Answer(out.sequences[0, len(prompt) :].tolist(), (top[:, 0] - top[:, 1]).tolist()))
    return answers


def agreement(got: Sequence[int], wanted: Answer) -> str:
    """ "same", "excused" (the first difference is where the oracle's own lead is noise) or "different"."""
    for mine, theirs, margin in zip(got, wanted.ids, wanted.margins, strict=False):
        if mine != theirs:
            return "excused" if margin < NOISE else "different"
    return "same" if len(got) == len(wanted.ids) else "different"


def prompts_around_borders(seed: int, count: int, vocab: int, most: int) -> list[list[int]]:
    """Prompts whose lengths stand around pages (16), grid cells (128) and chunks; every second one shares a beginning
    of a length around the same borders with others."""
    rng = random.Random(seed)
    borders = [b + d for b in (1, 7, 16, 32, 64, 128, 256) for d in (-1, 0, 1) if 1 <= b + d <= most]
    bases = [[rng.randrange(3, vocab) for _ in range(most)] for _ in range(4)]
    prompts = []
    for i in range(count):
        length = borders[i % len(borders)] if i < 2 * len(borders) else rng.choice(borders)
        if i % 2:
            prompts.append([rng.randrange(3, vocab) for _ in range(length)])
        else:
            own = rng.choice((0, 1, 2, 15, 16, 17))
            cut = max(1, length - own)
            prompts.append(rng.choice(bases)[:cut] + [rng.randrange(3, vocab) for _ in range(length - cut)])
    return prompts
