"""Documents that are computed once and read anywhere, against transformers in float32 with a block-diagonal mask."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.attention.stage import spec_of
from tests.engine.test_gpu_path import on_gpu_kernels
from tests.tiny_models import make_model
from umbel.api import LLM
from umbel.config import EngineConfig
from umbel.errors import UsageError
from umbel.ir.latent import Latent
from umbel.ir.layer import Edges, HeadNorm, Rope
from umbel.ir.params import SamplingParams
from umbel.ir.report import Stats
from umbel.plan.reuse import check_reuse
from umbel.runner.ahead import AheadTorchRunner

RNG = np.random.default_rng(5)
HEAD = RNG.integers(3, 290, 21).tolist()
TEXTS = [RNG.integers(3, 290, length).tolist() for length in (40, 133, 17, 61)]
ORDERS = ((0, 1, 2), (2, 0), (1, 3, 0), (3, 1, 2, 0), (1, 1), (2, 0))
QUESTIONS = [RNG.integers(3, 290, 9 + 3 * row).tolist() for row in range(len(ORDERS))]
GREEDY = SamplingParams(temperature=0.0, max_tokens=6, ignore_eos=True, logprobs=3)
DRAWN = SamplingParams(temperature=0.8, seed=3, n=2, max_tokens=20, ignore_eos=True)
DISTINCT = len(HEAD) + sum(map(len, TEXTS))  # and the questions

Prompt = dict[str, Any]


def prompt_of(head: Sequence[int], order: Sequence[int], question: Sequence[int]) -> Prompt:
    """A prompt of token ids with its documents."""
    ids, spans = list(head), []
    for number in order:
        spans.append([len(ids), len(ids) + len(TEXTS[number])])
        ids += TEXTS[number]
    return {"prompt_token_ids": ids + list(question), "documents": spans}


PROMPTS = [prompt_of(HEAD, order, question) for order, question in zip(ORDERS, QUESTIONS, strict=True)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model."""
    return make_model(tmp_path_factory.mktemp("apart") / "tiny", "qwen3", seed=1, max_position_embeddings=1024)


def answer(
    model: Path, prompts: Sequence[Prompt] = PROMPTS, params: Any = GREEDY, **asked: Any
) -> tuple[list[Any], Stats]:
    """Answers with documents apart, and what they took."""
    given = {"dtype": "float32", "device": "cpu", "threads": 1, "technique": "turbo-rag", "allow_lossy": True}
    with LLM(str(model), **given | asked) as llm:
        outputs = llm.generate(list(prompts), params, use_tqdm=False)
        return [output.outputs for output in outputs], llm.stats()


def tokens_of(answers: Sequence[Any]) -> list[list[tuple[int, ...]]]:
    """The tokens of every sample."""
    return [[tuple(one.token_ids) for one in each] for each in answers]


class Oracle:
    """The model in transformers, whose rows of a document see that document alone."""

    def __init__(self, directory: Path):
        self.model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager")

    @torch.inference_mode()
    def greedy(self, prompt: Mapping[str, Any], steps: int) -> tuple[list[int], torch.Tensor]:
        """The most likely tokens, and their distributions (log, `[steps, vocab]`)."""
        ids, found = list(prompt["prompt_token_ids"]), []
        for _ in range(steps):
            seen = torch.ones(len(ids), len(ids)).tril().bool()
            for first, end in prompt["documents"]:
                seen[first:end, :first] = False
            if (window := self.model.config.to_dict().get("sliding_window")) is not None:
                seen &= seen.new_ones(seen.shape).triu(1 - window)
            mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[None, None]
            places = torch.arange(len(ids))[None]
            logits = self.model(torch.tensor([ids]), attention_mask=mask, position_ids=places, use_cache=False).logits
            found.append(logits[0, -1].log_softmax(-1))
            ids.append(int(found[-1].argmax()))
        return ids[-steps:], torch.stack(found)


SCALED = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3": ("qwen3", {}),
    "llama3": ("llama", {"rope_scaling": SCALED | {"original_max_position_embeddings": 64}}),
    "yarn": ("qwen3", {"rope_scaling": YARN}),
    "windows": ("mistral", {"sliding_window": 50}),
}


@pytest.mark.parametrize("name", MODELS)
def test_answers_are_those_of_a_block_diagonal_mask(tmp_path: Path, name: str) -> None:
    """Documents that stand at several places, in several orders, and twice in one prompt."""
    family, config = MODELS[name]
    directory = make_model(tmp_path / name, family, seed=2, max_position_embeddings=1024, **config)
    oracle, (answers, stats) = Oracle(directory), answer(directory)
    for prompt, (answered,) in zip(PROMPTS, answers, strict=True):
        tokens, logs = oracle.greedy(prompt, GREEDY.max_tokens or 0)
        assert list(answered.token_ids) == tokens
        for place, likely in enumerate(answered.logprobs):
            for token in likely:
                assert likely[token].logprob == pytest.approx(float(logs[place, token]), abs=2e-5)
    assert stats.computed_prompt_tokens == DISTINCT + sum(map(len, QUESTIONS))
    places = {order[: at + 1] for order in ORDERS for at in range(len(order))}  # equal beginnings share theirs
    assert stats.copied_prompt_tokens == sum(len(TEXTS[one[-1]]) for one in places) - sum(map(len, TEXTS))


@pytest.fixture(scope="module")
def usual(model: Path) -> list[list[tuple[int, ...]]]:
    """What the tiny model answers, greedy and drawn by turns."""
    return tokens_of(answer(model, params=BY_TURNS)[0])


BY_TURNS = [GREEDY, DRAWN] * 3


@pytest.mark.parametrize(
    "options",
    [
        {"chunk": 13},
        {"chunk": 64, "kv_tokens": 384},
        {"technique": "turbo-rag:kept=1"},
        {"technique": "turbo-rag:kept=100", "chunk": 37, "kv_tokens": 384, "admission": "aggressive"},
        {"prefix": "none"},
        {"prefix": "every-fork", "attention_backend": "torch"},
        {"page_size": 32, "speculate": "lookup"},
    ],
    ids=["chunks", "tight pool", "nothing kept", "little of both", "nothing shared", "torch", "pages"],
)
def test_answers_do_not_depend_on_the_schedule(
    model: Path, usual: list[list[tuple[int, ...]]], options: dict[str, Any]
) -> None:
    answers, stats = answer(model, params=BY_TURNS, **options)
    assert tokens_of(answers) == usual
    if "admission" in options:
        assert stats.preemptions and stats.recomputed_tokens


def test_a_row_has_the_log_probabilities_that_it_has_alone(model: Path) -> None:
    """To the last bit, beside others and without, whichever row came first."""
    logs = [[one.logprobs for one in each] for each in answer(model)[0]]
    assert [[one.logprobs for one in answer(model, [prompt])[0][0]] for prompt in PROMPTS[2:4]] == logs[2:4]
    assert [[one.logprobs for one in each] for each in answer(model, PROMPTS[::-1])[0]] == logs[::-1]
    assert [[one.logprobs for one in each] for each in answer(model, chunk=29)[0]] == logs


def test_steps_may_be_decided_ahead(
    model: Path, usual: list[list[tuple[int, ...]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("umbel.engine.build.TorchRunner", lambda *parts: AheadTorchRunner(*parts[:3], states=parts[4]))
    assert tokens_of(answer(model, params=BY_TURNS, chunk=50)[0]) == usual


def test_rows_without_documents_answer_as_ever(model: Path) -> None:
    """Beside rows that have some; of the same tokens, in one piece, they are other prompts."""
    plain = [{"prompt_token_ids": prompt["prompt_token_ids"]} for prompt in PROMPTS]
    alone = tokens_of(answer(model, plain, technique=())[0])
    both = tokens_of(answer(model, [*PROMPTS, *plain])[0])
    assert both[len(PROMPTS) :] == alone != both[: len(PROMPTS)]


@pytest.mark.parametrize(
    ("spans", "said"),
    [
        ([[21, 30], [25, 40]], "documents.1.=.25, 40.: must begin at token 30 or behind it"),
        ([[30, 30]], "must begin at token 0 or behind it, where the one before ends, and have a token"),
        ([[0, 30], [30, 9000]], "documents end at token 9000: the prompt has 220 tokens"),
        ([[0, "x"]], "documents.0.=.0, 'x'.: must be .first, end., in tokens"),
        ("all", "documents='all': must be a list"),
    ],
)
def test_spans_that_cannot_be_are_named_and_harm_no_other_row(model: Path, spans: Any, said: str) -> None:
    bad = {**PROMPTS[0], "documents": spans}
    options = {"technique": "turbo-rag", "allow_lossy": True, "device": "cpu", "dtype": "float32"}
    with LLM(str(model), **options) as llm:
        good, fault = llm.generate([PROMPTS[1], bad], GREEDY, use_tqdm=False)
    assert fault.error is not None and fault.error.param == "documents"
    assert re.search(said, fault.error.message)
    assert tokens_of([good.outputs]) == tokens_of(answer(model, [PROMPTS[1]])[0])


@pytest.mark.slow
def test_a_gpu_reads_documents_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kernels, in the interpreter."""
    tiny = make_model(tmp_path / "tiny", "qwen3", seed=4, hidden_size=32, num_attention_heads=2, head_dim=16)
    short = [
        prompt_of(HEAD[:3], order, question[:4]) for order, question in zip(((2,), (2, 2)), QUESTIONS, strict=False)
    ]
    params = SamplingParams(temperature=0.0, max_tokens=2, ignore_eos=True)
    plain = tokens_of(answer(tiny, short, params)[0])
    made = on_gpu_kernels(monkeypatch)
    assert tokens_of(answer(tiny, short, params)[0]) == plain and made


@pytest.mark.parametrize(
    ("family", "config", "options", "said"),
    [
        ("qwen3", {}, {"kv_cache_dtype": "int8"}, "rounds keys once"),
        ("qwen3", {}, {"prefix": "one-level"}, "ends shared runs at whole pages"),
        (
            "qwen3",
            {},
            {"technique": ("turbo-rag", "pages")},
            "documents that rows share are .* read whole; give one of them",
        ),
        ("qwen3", {}, {"model_impl": "transformers"}, "run through transformers"),
    ],
)
def test_what_cannot_bear_it_is_refused(
    tmp_path: Path, family: str, config: dict[str, Any], options: dict[str, Any], said: str
) -> None:
    directory = make_model(tmp_path / "tiny", family, **config)
    with pytest.raises(UsageError, match=said):
        answer(directory, **options)


def test_models_whose_keys_have_places_are_refused() -> None:
    """Each for a reason of its own."""
    config, spec = EngineConfig("m", technique="turbo-rag", allow_lossy=True), spec_of(2, 2, 16)
    check_reuse(config, spec)
    layer = spec.layers[0]
    latent = Latent(8, 8, 8, 8)
    for other, said in (
        (replace(spec, edges=Edges(position_offset=0)), "learned vector of the position"),
        (replace(spec, layers=(replace(layer, rope=Rope(growth=0.1)),)), "queries .* grow"),
        (replace(spec, layers=(replace(layer, latent=latent),)), "one vector for keys and values"),
        (replace(spec, layers=(replace(layer, head_norm=HeadNorm(is_rotated=True)),)), "behind their rotation"),
    ):
        with pytest.raises(UsageError, match=said):
            check_reuse(config, other)


def test_sessions_refuse_it(model: Path) -> None:
    """Rows that come later find their beginnings by tokens alone."""
    said = "sessions find the beginnings of rows to come by their tokens"
    llm = LLM(str(model), technique="turbo-rag", allow_lossy=True, device="cpu")
    with llm, pytest.raises(UsageError, match=said), llm.session():
        pass
