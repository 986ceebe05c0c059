"""Compares the families of the zoo with transformers over long answers: `python -m tools.zoo [case...]`.

For each case of tests/models/zoo.py: 100 prompts that end around borders are answered greedily in one batch that shares
beginnings, in chunks and from a tight pool. A token is right where it is what transformers in float32 finds best behind
the same tokens; where two are closer than its own noise, either is. Then the best tokens in bfloat16, with weights that
both round to it, at some positions of each answer: those where transformers' own logits move by less in bfloat16 than
the best one leads.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from tests.models.zoo import CASES, VOCAB, make_zoo_model
from tests.oracle.hf import NOISE, prompts_around_borders
from umbel import LLM, SamplingParams

N_PROMPTS, N_TOKENS, LONGEST, EVERY = 100, 256, 129, 16


@torch.inference_mode()
def main(names: list[str]) -> None:
    """Print a line for each case, and the sums."""
    total: Counter[str] = Counter()
    for name in names or CASES:
        with tempfile.TemporaryDirectory() as directory:
            wide = make_zoo_model(Path(directory), name)
            answers = answered(directory)
            found = Counter(verdict(wide, prompt, answer) for prompt, answer in answers)
            found += in_bfloat16(directory, wide, answers)
        total += found
        print(name, dict(found), flush=True)
    print("all", dict(total))


def answered(directory: str) -> list[tuple[list[int], list[int]]]:
    """Prompts with our greedy answers."""
    prompts = prompts_around_borders(3, N_PROMPTS, VOCAB - 1, LONGEST)
    llm = LLM(directory, dtype="float32", device="cpu", threads=1, chunk=48, kv_tokens=6000, prefix="every-fork")
    room = llm.engine.model.spec.max_positions - LONGEST
    outputs = llm.generate(prompts, SamplingParams(temperature=0.0, max_tokens=min(N_TOKENS, room)))
    return [(p, list(output.outputs[0].token_ids)) for p, output in zip(prompts, outputs, strict=True)]


def verdict(model: Any, prompt: list[int], answer: list[int]) -> str:
    """Whether each token of an answer is the best one behind those before it: "same", "excused" or "different"."""
    logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    given = torch.tensor(answer)
    behind = logits.amax(1) - logits.gather(1, given[:, None])[:, 0]
    wrong = behind[logits.argmax(1) != given]
    return "same" if not len(wrong) else "excused" if wrong.max() < NOISE else "different"


def in_bfloat16(directory: str, wide: Any, answers: list[tuple[list[int], list[int]]]) -> Counter[str]:
    """At how many positions the best token is beyond doubt, and at how many of these it is ours too."""
    from transformers import AutoModelForCausalLM

    narrow = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16, attn_implementation="eager").eval()
    wide.load_state_dict(narrow.state_dict())
    grown, best = [], []
    for prompt, answer in answers:
        ids = prompt + answer
        logits, moved = (model(torch.tensor([ids])).logits[0].float() for model in (wide, narrow))
        first, second = logits.topk(2).values.T
        clear = first - second > (moved - logits).abs().amax(1)
        for at in range(len(prompt) - 1, len(ids) - 1, EVERY):
            if clear[at]:
                grown.append(ids[: at + 1])
                best.append(int(logits[at].argmax()))
    llm = LLM(directory, dtype="bfloat16", device="cpu", threads=1)
    outputs = llm.generate(grown, SamplingParams(temperature=0.0, max_tokens=1, ignore_eos=True))
    equal = sum(output.outputs[0].token_ids == (one,) for output, one in zip(outputs, best, strict=True))
    return Counter({"clear": len(best), "clear and equal in bfloat16": equal})


if __name__ == "__main__":
    main(sys.argv[1:])
