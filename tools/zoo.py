"""Compares native models with transformers over long answers: `python -m tools.zoo [--keep] [case...]`.

For each case of tests/models/zoo.py and tests/mixtures.py, and two of tests/tiny_models.py: 100 prompts that end around
borders are answered greedily, 256 tokens each, in one batch, and once more with shared beginnings, in chunks and from a
tight pool. A token is right where it is what transformers in float32 finds best behind the same tokens; where two are
closer than its own noise, either is. The largest difference of logits is that of our layers over the same prompts and
answers. Then the best tokens in bfloat16, with weights that both round to it, at some positions of each answer: those
where transformers' own logits move by less in bfloat16 than the best one leads.

`--keep` puts what was found of each type's first case into tests/models/type_figures.json, for docs/model_types.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests.mixtures import MODELS, make_mixture
from tests.models.dense import dense_logits
from tests.models.types_doc import FIGURES
from tests.models.zoo import CASES, VOCAB, make_zoo_model, sum_token_by_token
from tests.oracle.hf import NOISE, prompts_around_borders
from tests.tiny_models import VOCAB_SIZE, make_model
from umbel import LLM, SamplingParams
from umbel.models.decoder import Decoder
from umbel.models.families import read_spec
from umbel.models.weights import StoredWeights

N_PROMPTS, N_TOKENS, LONGEST, EVERY = 100, 256, 129, 16
TIGHT = {"chunk": 48, "kv_tokens": 6000, "prefix": "every-fork"}
TINY = ("mixtral", "qwen3_moe")  # the mixtures that tests/tiny_models.py makes for all other tests
TYPES = {name: kind for name, (kind, _) in (CASES | MODELS).items()} | {name: name for name in TINY}
"""The model type of each case."""
FIRST = {kind: name for name, kind in reversed(TYPES.items())}.values()
Answers = list[tuple[list[int], list[int]]]


@dataclass(frozen=True)
class Figures:
    """Of one case: answers that are transformers' own, that part from them at a tie, or elsewhere; those that are the
    same from a tight pool; the largest difference of logits; positions whose best token is beyond doubt in bfloat16,
    and those of them where it is ours."""

    same: int
    excused: int
    different: int
    same_in_tight_pool: int
    logits: float
    clear: int
    clear_and_equal: int


@torch.inference_mode()
def compared(name: str, directory: Path) -> Figures:
    """All comparisons of one case, whose model is written into `directory`."""
    wide = make(name, directory)
    prompts = prompts_around_borders(3, N_PROMPTS, min(VOCAB - 1, VOCAB_SIZE), LONGEST)
    answers, tight = answered(directory, prompts), answered(directory, prompts, **TIGHT)
    spec = read_spec(directory)
    decoder = Decoder(spec, StoredWeights(directory, spec, torch.float32))
    verdicts, logits = [], 0.0
    for prompt, answer in answers:
        theirs = wide(torch.tensor([prompt + answer])).logits[0]
        logits = max(logits, float((dense_logits(decoder, prompt + answer) - theirs).abs().max()))
        verdicts.append(verdict(theirs[len(prompt) - 1 : -1], answer))
    same, excused, different = (verdicts.count(word) for word in ("same", "excused", "different"))
    alike = sum(one == other for one, other in zip(answers, tight, strict=True))
    return Figures(same, excused, different, alike, logits, *in_bfloat16(directory, wide, answers))


def make(name: str, directory: Path) -> Any:
    """Write the model of a case, and give transformers' own of it, in float32."""
    if name in CASES:
        return make_zoo_model(directory, name)
    if name in TINY:
        make_model(directory, name)
    else:
        kind, settings = MODELS[name]
        make_mixture(directory, kind, seed=7, **settings)
    return transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager"
    ).eval()


def answered(directory: Path, prompts: list[list[int]], **options: Any) -> Answers:
    """Prompts with our greedy answers."""
    with LLM(str(directory), dtype="float32", device="cpu", threads=1, **options) as llm:
        room = min(N_TOKENS, llm.engine.model.spec.max_positions - LONGEST)
        params = SamplingParams(temperature=0.0, max_tokens=room, ignore_eos=True)
        outputs = llm.generate(prompts, params, use_tqdm=False)
    return [(p, list(output.outputs[0].token_ids)) for p, output in zip(prompts, outputs, strict=True)]


def verdict(logits: torch.Tensor, answer: list[int]) -> str:
    """Whether each token of an answer is the best one behind those before it: "same", "excused" or "different"."""
    given = torch.tensor(answer)
    behind = logits.amax(1) - logits.gather(1, given[:, None])[:, 0]
    wrong = behind[logits.argmax(1) != given]
    return "same" if not len(wrong) else "excused" if wrong.max() < NOISE else "different"


def in_bfloat16(directory: Path, wide: Any, answers: Answers) -> tuple[int, int]:
    """At how many positions the best token is beyond doubt, and at how many of these it is ours too."""
    narrow = transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.bfloat16, attn_implementation="eager"
    ).eval()
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
    with LLM(str(directory), dtype="bfloat16", device="cpu", threads=1) as llm:
        params = SamplingParams(temperature=0.0, max_tokens=1, ignore_eos=True)
        outputs = llm.generate(grown, params, use_tqdm=False)
    return len(best), sum(o.outputs[0].token_ids == (one,) for o, one in zip(outputs, best, strict=True))


def keep(kind: str, figures: Figures) -> None:
    """Put the figures of a type beside those of others."""
    kept = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    kept[kind] = asdict(figures)
    FIGURES.write_text(json.dumps(dict(sorted(kept.items())), indent=1) + "\n")


def main() -> None:
    """Print a line for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *TYPES], metavar="case")
    parser.add_argument("--keep", action="store_true")
    asked = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    with pytest.MonkeyPatch.context() as patch:
        sum_token_by_token(patch)
        for name in asked.names or TYPES:
            began = time.perf_counter()
            with tempfile.TemporaryDirectory() as directory:
                figures = compared(name, Path(directory))
            print(f"{name}: {figures} ({time.perf_counter() - began:.0f} s)", flush=True)
            if asked.keep and name in FIRST:
                keep(TYPES[name], figures)


if __name__ == "__main__":
    main()
