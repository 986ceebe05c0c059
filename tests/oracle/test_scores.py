"""Log-probabilities of prompts and of continuations equal those of transformers within 1e-4, on all families: alone,
shared, cut over steps and where pages run out; and each token is computed once."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch

from tests.oracle.hf import prompts_around_borders
from tests.oracle.test_greedy import MODELS as GREEDY_MODELS
from tests.parameters import few_of
from tests.tiny_models import VOCAB_SIZE, make_model
from umbel.api import LLM
from umbel.ir.params import SamplingParams

MODELS = {**GREEDY_MODELS, "mixtral": {"family": "mixtral"}}
SLOW = [name for name in MODELS if name not in ("qwen2", "mistral with a window")]
NEAR = 1e-4
PARAMS = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=1)
SETTINGS = {
    "shared": {},
    "every fork": {"prefix": "every-fork"},
    "chunks of 7": {"chunk": 7},
    "tight pool": {"kv_tokens": 320, "chunk": 64},
}


@torch.inference_mode()
def logprobs_of(directory: Path, prompts: list[list[int]]) -> list[torch.Tensor]:
    """By transformers, float32, one prompt at a time: `[tokens, vocab]` for each."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()
    return [torch.log_softmax(model(torch.tensor([prompt])).logits[0], -1) for prompt in prompts]


@dataclass
class Subject:
    """A model, loaded once, with prompts, continuations of them and the oracle's log-probabilities of both together."""

    name: str
    llm: LLM
    prompts: list[list[int]]
    ends: list[list[list[int]]]
    wanted: dict[tuple[int, ...], torch.Tensor]
    errors: list[float] = field(default_factory=list)

    def use(self, **options: int | str) -> None:
        """Run with these options from now on."""
        model = self.llm.engine.model
        model.config = replace(model.config, chunk=None, kv_tokens=None, prefix="forest")
        model.config = replace(model.config, **options)

    def compare(self, found: float, ids: list[int], place: int, token: int) -> None:
        """A log-probability of a token behind the first `place` of some ids."""
        self.errors.append(abs(found - float(self.wanted[tuple(ids)][place - 1, token])))
        assert self.errors[-1] <= NEAR

    def check_prompts(self, rows: list[int]) -> None:
        """Score prompts in one batch."""
        for row, output in zip(rows, self.llm.generate([self.prompts[r] for r in rows], PARAMS), strict=True):
            ids, found = self.prompts[row], output.prompt_logprobs
            assert (
                output.error is None
                and found is not None
                and [e is None for e in found] == [True] + [False] * (len(ids) - 1)
            )
            for place, entry in enumerate(found):
                if entry is not None:
                    self.compare(entry.logprob, ids, place, ids[place])
                    self.compare(entry.top[0][1], ids, place, entry.top[0][0])

    def check_ends(self, rows: list[int]) -> None:
        """Score continuations in one batch; what they share with others is computed once."""
        before = self.llm.stats().computed_prompt_tokens
        found = self.llm.score([self.prompts[r] for r in rows], [self.ends[r] for r in rows])
        for row, scores in zip(rows, found, strict=True):
            for score, end in zip(scores, self.ends[row], strict=True):
                ids = [*self.prompts[row], *end]
                for at, logprob in enumerate(score.token_logprobs):
                    self.compare(logprob, ids, len(self.prompts[row]) + at, end[at])
        computed = self.llm.stats().computed_prompt_tokens - before
        most = sum(len(self.prompts[r]) + sum(map(len, self.ends[r])) for r in rows)
        if self.llm.engine.model.config.prefix == "every-fork":
            assert computed == distinct_beginnings([[*self.prompts[r], *e] for r in rows for e in self.ends[r]]) <= most


def distinct_beginnings(texts: list[list[int]]) -> int:
    """Nodes of the trie of some texts: the fewest tokens that can be computed for all of them."""
    return len({tuple(text[: n + 1]) for text in texts for n in range(len(text))})


@pytest.fixture(scope="module", params=few_of(["qwen2", "mistral with a window"], SLOW))
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    settings = dict(MODELS[request.param])
    directory = make_model(tmp_path_factory.mktemp("model"), settings.pop("family"), seed=11, **settings)
    draw = random.Random(4)
    prompts = prompts_around_borders(3, 20, VOCAB_SIZE, 140)
    ends = [[[draw.randrange(3, 9) for _ in range(draw.randint(1, 4))] for _ in range(3)] for _ in prompts]
    texts = [*prompts, *([*prompt, *end] for prompt, mine in zip(prompts, ends, strict=True) for end in mine)]
    wanted = dict(zip(map(tuple, texts), logprobs_of(directory, texts), strict=True))
    llm = LLM(str(directory), dtype="float32", device="cpu", threads=1)
    found = Subject(request.param, llm, prompts, ends, wanted)
    yield found
    print(f"\n{found.name}: {len(found.errors):,} log-probabilities, largest difference {max(found.errors):.1e}")


@pytest.mark.parametrize("setting", SETTINGS)
def test_all_together(subject: Subject, setting: str) -> None:
    subject.use(**SETTINGS[setting])
    rows = list(range(len(subject.prompts)))
    subject.check_prompts(rows)
    subject.check_ends(rows)


def test_one_by_one(subject: Subject) -> None:
    subject.use()
    for row in range(0, len(subject.prompts), 3):
        subject.check_prompts([row])
        subject.check_ends([row])
