"""Superposed Decoding (arXiv 2405.18400) on the demo model, beside k samples of one prompt: what it spares and spoils.

    python -m bench.superposed [--drafts 3] [--tokens 10] [--prompts 40] [--seed 0] (prints Markdown)

k drafts of a text share one sequence of keys and values: each step feeds the mean of the embeddings of their last
tokens, weighed by a softmax of their scores, and its one distribution is made each draft's own by counts of n-grams.
So a step costs what one row costs, and what it computes belongs to no text: answers are not those of the model. The
n-grams are counted in stories that the model wrote itself. What is judged is the log-probability of the drafts under
the model, a token, and how often the best of them has the tokens of greedy decoding. Seconds are of one prompt after
the other for superposed drafts, and of all together for samples, as each method has it here.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from umbel import LLM, SamplingParams
from umbel.attention.pick import pick_attention
from umbel.config import EngineConfig
from umbel.engine.build import Model, build_store
from umbel.ir.step import Sampling, Step

Ids = tuple[int, ...]
Floats = NDArray[np.float64]

WEIGHTS = {2: 0.01, 3: 0.04, 4: 0.15, 5: 0.18, 6: 0.12}  # of the orders of n-grams
ALPHA, TEMPERATURE, KEPT, UNSEEN = 0.54, 0.1, 3, -200.0  # the paper's for three drafts; KEPT tokens a draft
PAGE = 16


class NGramCounts:
    """How often tokens followed the last ones of a text, for each order of WEIGHTS."""

    def __init__(self, texts: Sequence[Ids]):
        self.seen: dict[Ids, Counter[int]] = {}
        for text in texts:
            for order in WEIGHTS:
                for end in range(order - 1, len(text)):
                    self.seen.setdefault(text[end - order + 1 : end], Counter())[text[end]] += 1

    def chances(self, text: Ids, tokens: Sequence[int]) -> Floats:
        """Of these next tokens, over all orders whose context was seen."""
        found = np.zeros(len(tokens))
        for order, weight in WEIGHTS.items():
            counts = self.seen.get(text[len(text) - order + 1 :])
            if counts:
                found += weight * np.array([counts[token] for token in tokens]) / counts.total()
        return found


class MixedText:
    """A sequence of keys and values whose last inputs are mixtures of embeddings; `forwards` counts its steps."""

    def __init__(self, model: Model, room: int):
        self.model, self.size, self.forwards = model, 0, 0
        self.pages = -(-room // PAGE)
        store = build_store(model, self.pages, PAGE)
        self.attention = pick_attention(model.spec, store, model.device, "auto")

    def feed(self, tokens: Sequence[Sequence[int]], weights: Floats) -> torch.Tensor:
        """Put places behind the text, each a mixture of its tokens; gives the logits behind the last (`[vocab]`)."""
        step, decoder = self._step(len(tokens)), self.model.decoder
        self.attention.prepare(step)
        positions = torch.from_numpy(step.positions)
        each = decoder.embed(torch.tensor(tokens).flatten(), positions.repeat_interleave(len(tokens[0]))).view(
            len(tokens), len(tokens[0]), -1
        )
        mixed = (each * torch.from_numpy(weights).to(each.dtype)[:, None]).sum(1)
        hidden = decoder.forward(mixed, decoder.batch(positions), self.attention)
        self.size, self.forwards = self.size + len(tokens), self.forwards + 1
        return decoder.logits(hidden[-1:])[0]

    def _step(self, count: int) -> Step:
        one, zero, rows = np.array([count]), np.zeros(1, np.int64), np.ones(count, bool)
        pages = np.arange(-(-(self.size + count) // PAGE))
        draws = Sampling(*(np.zeros(0, np.int64) for _ in range(10)))
        places, end = np.arange(self.size, self.size + count), zero + self.size + count
        fed = np.zeros(count, np.int64)
        return Step(fed, places, rows, zero - 1, zero, end, zero, one, one, pages, zero, PAGE, draws)


@dataclass(frozen=True, slots=True)
class Beam:
    """Drafts that go on (`[k]`) and those that have ended, with their scores."""

    alive: list[tuple[float, Ids]]
    ended: list[tuple[float, Ids]] = field(default_factory=list)


def advance(
    beam: Beam, logs: Floats, tokens: Sequence[int], chances: Callable[[Ids, Sequence[int]], Floats], ends: Ids, k: int
) -> Beam:
    """One step of the search: `tokens` are the likeliest with their log-probabilities `logs`; of all continuations the
    2k best by the mean of these and of each draft's own n-grams, of which k go on and k have ended."""
    found = []
    for score, draft in beam.alive:
        own = chances(draft, tokens)
        mixed = (1 - ALPHA) * logs
        if own.any():
            with np.errstate(divide="ignore"):
                mixed = mixed + ALPHA * np.log(own)
        else:
            mixed = mixed + UNSEEN
        found += [(score + float(one), (*draft, token)) for one, token in zip(mixed, tokens, strict=True)]
    best = sorted(found, reverse=True)[: 2 * k]
    alive = [one for one in best if one[1][-1] not in ends][:k]
    ended = sorted([*beam.ended, *(one for one in best if one[1][-1] in ends)], reverse=True)[:k]
    return Beam(alive, ended)


@torch.inference_mode()
def superposed(model: Model, counts: NGramCounts | None, prompt: Sequence[int], k: int, most: int) -> list[Ids]:
    """The best k texts behind a prompt, of at most `most` tokens, with one forward a token; without counts the drafts
    are told apart by nothing but their first tokens."""
    text, ends = MixedText(model, len(prompt) + most), tuple(model.spec.eos_token_ids)
    logs, tokens = kept(text.feed([[token] for token in prompt], np.ones(1)), k)
    beam = Beam([(float(one), (token,)) for one, token in zip(logs[:k], tokens[:k], strict=True) if token not in ends])
    start = tuple(prompt)

    def chances(draft: Ids, some: Sequence[int]) -> Floats:
        return np.ones(len(some)) if counts is None else counts.chances(start + draft, some)

    for _ in range(most - 1):
        if not beam.alive:
            break
        scores = np.array([score for score, _ in beam.alive])
        weights = np.exp(scores - scores.max())
        logits = text.feed([[draft[-1] for _, draft in beam.alive]], weights / weights.sum())
        beam = advance(beam, *kept(logits, k), chances, ends, k)
    every = sorted(beam.alive + beam.ended, key=lambda one: one[0] / len(one[1]), reverse=True)
    return [draft for _, draft in every[:k]]


def kept(logits: torch.Tensor, k: int) -> tuple[Floats, list[int]]:
    """The likeliest tokens, KEPT for each draft, and their log-probabilities among themselves."""
    found = torch.topk(logits.double() / TEMPERATURE, min(KEPT * k, len(logits)))
    return torch.log_softmax(found.values, 0).numpy(), found.indices.tolist()


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drafts", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=10)
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    k, most = asked.drafts, asked.tokens
    options = {"dtype": "float32", "device": "cpu", "threads": 1}
    model = Model(EngineConfig.of("demo", **options))
    with LLM("demo", seed=asked.seed, **options) as llm:  # type: ignore[arg-type]
        opening = "Once upon a time"
        written = llm.generate([opening], SamplingParams(n=1_000, temperature=1.0, max_tokens=64))[0]
        stories = [tuple(written.prompt_token_ids) + one.token_ids for one in written.outputs]
        prompts = [list(story[:15]) for story in stories[: asked.prompts]]
        counts, greedy = NGramCounts(stories[asked.prompts :]), SamplingParams(temperature=0.0, max_tokens=most)
        truth = [one.outputs[0].token_ids for one in llm.generate(prompts, greedy)]
        sampled = SamplingParams(n=k, temperature=0.7, max_tokens=most)
        rows = {
            "samples of one prompt": lambda: [[c.token_ids for c in o.outputs] for o in llm.generate(prompts, sampled)]
        }
        rows["superposed"] = lambda: [superposed(model, counts, prompt, k, most) for prompt in prompts]
        rows["superposed, no n-grams"] = lambda: [superposed(model, None, prompt, k, most) for prompt in prompts]
        print("| drafts | log-probability a token | of the best | best is greedy | seconds |")
        print("| --- | ---: | ---: | ---: | ---: |")
        for name, act in rows.items():
            began = time.perf_counter()
            drafts, seconds = act(), time.perf_counter() - began
            print(f"| {name} | {judged(llm, prompts, drafts, truth)} | {seconds:.2f} |")


def judged(llm: LLM, prompts: list[list[int]], drafts: list[list[Ids]], truth: list[Ids]) -> str:
    """Mean log-probability a token of all drafts and of the best, and how often the best is the greedy answer."""
    means = [
        [score.mean for score in row] for row in llm.score(prompts, [[list(one) for one in row] for row in drafts])
    ]
    best = [row[int(np.argmax(of))] for row, of in zip(drafts, means, strict=True)]
    same = sum(one == other for one, other in zip(best, truth, strict=True))
    every, highest = np.mean([mean for row in means for mean in row]), np.mean([max(row) for row in means])
    return f"{every:.2f} | {highest:.2f} | {same} of {len(truth)}"


if __name__ == "__main__":
    main()
