"""Trains a draft model on what the target answers to a job's own prompts (FastDraft, arXiv 2411.11055).

    python -m tools.fast_draft JOB.jsonl --out DIR [--model demo] [--draft draft] [--steps 400]

The answers of a finished job are text that the target has generated: a draft that learns them is accepted more often in
the next job of the kind. The target answers every prompt greedily; the draft learns the answers to four fifths of the
prompts token by token (sequence-level distillation), and is measured on the others before and after, beside n-gram
lookup in the row's own prompt. Needs transformers, which is trusted with nothing but safetensors.

Figures: `accepted`, the share of answer tokens that a drafter proposes when it knows all tokens before them; `tokens a
step`, what a step of the target yields when it checks up to four proposed tokens. Both are exact for greedy rows: a
drafter that was right so far has seen what it would have written itself.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from umbel.api import LLM
from umbel.errors import UsageError
from umbel.ir.params import SamplingParams
from umbel.models.families import resolve_model

DEPTH = 4  # proposed tokens a step, where `tokens a step` is measured
LONGEST_NGRAM = 3
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
IGNORED = -100  # a position without loss, for transformers


@dataclass(frozen=True, slots=True)
class Answered:
    """A prompt and what the target answers, as token ids."""

    prompt: list[int]
    answer: list[int]


@dataclass(frozen=True, slots=True)
class Score:
    """How a drafter does on some answers."""

    accepted: float
    tokens_a_step: float


def load(source: Path, layers: int | None) -> PreTrainedModel:
    """A draft to train: all of one, or its first layers."""
    config = AutoConfig.from_pretrained(source)
    if layers is not None:
        config.num_hidden_layers = layers
        config.layer_types = config.layer_types[:layers]
    return AutoModelForCausalLM.from_pretrained(source, config=config, dtype=torch.float32, use_safetensors=True).eval()


def answers_of(model: str, job: Path, max_tokens: int) -> list[Answered]:
    """What the target answers to the prompts of a job, greedily."""
    rows = [json.loads(line) for line in job.read_text(encoding="utf-8").splitlines() if line.strip()]
    bodies = [row.get("body", row) for row in rows]
    prompts = [{name: body[name]} for body in bodies for name in ("messages", "prompt") if name in body]
    with LLM(model) as llm:
        outputs = llm.generate(prompts, SamplingParams(temperature=0.0, max_tokens=max_tokens))
    return [Answered(o.prompt_token_ids, list(o.outputs[0].token_ids)) for o in outputs if o.error is None]


def score(rows: Sequence[Answered], hits_of: Callable[[Answered], list[bool]]) -> Score:
    """Of a drafter, of which `hits_of` says where in an answer it proposes the right token."""
    right = made = steps = 0
    for row in rows:
        hits = hits_of(row)
        right, made, at = right + sum(hits), made + len(hits), 0
        while at < len(hits):
            run = hits[at : at + DEPTH]
            at += (run.index(False) if False in run else len(run)) + 1
            steps += 1
    return Score(right / max(made, 1), made / max(steps, 1))


def ngram_hits(row: Answered) -> list[bool]:
    """Where looking up the last tokens, as many as occur before, gives the right one."""
    tokens = row.prompt + row.answer
    return [_lookup(tokens[:at]) == tokens[at] for at in range(len(row.prompt), len(tokens))]


def _lookup(tokens: list[int]) -> int | None:
    for n in range(LONGEST_NGRAM, 0, -1):
        for at in range(len(tokens) - n - 1, -1, -1):
            if tokens[at : at + n] == tokens[-n:]:
                return tokens[at + n]
    return None


@torch.inference_mode()
def draft_hits(draft: PreTrainedModel, row: Answered) -> list[bool]:
    """Where the draft's most likely token is the right one."""
    ids = torch.tensor([row.prompt + row.answer])
    chosen = draft(ids).logits[0, len(row.prompt) - 1 : -1].argmax(-1)
    return (chosen == ids[0, len(row.prompt) :]).tolist()


def batches(rows: Sequence[Answered], size: int, seed: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Ids, mask and labels (`[rows, tokens]` each) of random rows, without end; only answers have labels."""
    noise = torch.Generator().manual_seed(seed)
    while True:
        for part in torch.randperm(len(rows), generator=noise).split(size):
            some = [rows[i] for i in part.tolist()]
            longest = max(len(row.prompt) + len(row.answer) for row in some)
            ids = torch.zeros(len(some), longest, dtype=torch.long)
            mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
            for i, row in enumerate(some):
                both = torch.tensor(row.prompt + row.answer)
                ids[i, : len(both)], mask[i, : len(both)] = both, 1
                labels[i, len(row.prompt) : len(both)] = both[len(row.prompt) :]
            yield ids, mask, labels


def train(draft: PreTrainedModel, rows: Sequence[Answered], steps: int, rate: float, seed: int) -> None:
    """Teach the draft the answers: AdamW on the cross-entropy of their tokens, the rate falling to nothing."""
    optimiser = torch.optim.AdamW(draft.parameters(), rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.1)
    draft.train()
    for step, (ids, mask, labels) in zip(range(steps), batches(rows, 16, seed), strict=False):
        loss = draft(ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(draft.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        if step % 50 == 0 or step == steps - 1:
            print(f"step {step:>5}: loss {loss.item():.3f}", flush=True)
    draft.eval()


def check_tokenizers(target: Path, draft: Path) -> None:
    """Raise UsageError when the two do not have the same tokenizer."""
    one, other = (json.loads((folder / "tokenizer.json").read_text(encoding="utf-8")) for folder in (target, draft))
    if one["model"] != other["model"] or one["added_tokens"] != other["added_tokens"]:
        raise UsageError(f"draft {draft}: has another tokenizer than {target}; its proposals would be other tokens")


def save(draft: PreTrainedModel, source: Path, out: Path) -> None:
    """Write the draft as a model directory, with the tokenizer of the one it started from."""
    draft.to(torch.bfloat16).save_pretrained(out)
    for name in TOKENIZER_FILES:
        if (source / name).exists():
            shutil.copyfile(source / name, out / name)


def main(given: Sequence[str] | None = None) -> dict[str, Score]:
    """Read the command line, train, print the table; returns its scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", type=Path, help="JSON lines with prompts, as for `umbel run`")
    parser.add_argument("--out", type=Path, required=True, help="folder for the trained draft")
    parser.add_argument("--model", default="demo", help="the target")
    parser.add_argument("--draft", default="draft", help="the draft to start from, with the target's tokenizer")
    parser.add_argument("--layers", type=int, help="start from the first layers of the draft alone (default: all)")
    parser.add_argument("--steps", type=int, default=400, help="of training, on 16 answers each")
    parser.add_argument("--rate", type=float, default=1e-3, help="highest learning rate")
    parser.add_argument("--max-tokens", type=int, default=64, help="of an answer")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(given)
    target, source = resolve_model(asked.model), resolve_model(asked.draft)
    check_tokenizers(target, source)
    rows = answers_of(asked.model, asked.job, asked.max_tokens)
    random.Random(asked.seed).shuffle(rows)
    held_out, learned = rows[: len(rows) // 5], rows[len(rows) // 5 :]
    draft = load(source, asked.layers)
    scores = {"n-gram lookup": score(held_out, ngram_hits)}
    scores["draft before"] = score(held_out, lambda row: draft_hits(draft, row))
    train(draft, learned, asked.steps, asked.rate, asked.seed)
    scores["draft after"] = score(held_out, lambda row: draft_hits(draft, row))
    save(draft, source, asked.out)
    print(f"\n{len(held_out)} answers held out{'':10}accepted  tokens a step")
    for name, found in scores.items():
        print(f"{name:28}{found.accepted:8.0%}{found.tokens_a_step:15.2f}")
    return scores


if __name__ == "__main__":
    main()
