"""A draft model proposes: answers stay those of plain decoding, and the model itself, as the draft, is always right."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.engine.test_gpu_path import on_gpu_kernels, record_steps
from tests.engine.test_speculation_of_models import rows_of
from umbel.api import LLM, RequestOutput
from umbel.config import EngineConfig
from umbel.cost.cards import named
from umbel.demo import path
from umbel.engine import draft_model
from umbel.engine.draft_model import ModelDrafter
from umbel.errors import UsageError
from umbel.ir.params import SamplingParams
from umbel.runner.ahead import AheadTorchRunner
from umbel.spec.base import MOST, Constant, Setting

SMALL = {"dtype": "float32", "device": "cpu", "threads": 1}


@pytest.fixture(autouse=True)
def asks_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drafts are asked for in every step, whatever they cost on this machine."""
    monkeypatch.setattr("umbel.engine.build.PricedDepth", lambda prices: Constant(MOST))


def answers(model: str, prompts: object, params: object, **options: object) -> tuple[list[RequestOutput], LLM]:
    with LLM(model, **SMALL, **options) as llm:  # type: ignore[arg-type]
        return llm.generate(prompts, params), llm  # type: ignore[arg-type]


def drafting(model: str, prompts: list[list[int]]) -> ModelDrafter:
    """The draft model of a model, with a greedy sample for each prompt."""
    config = EngineConfig("demo", dtype="float32", device="cpu", threads=1, page_size=4)
    drafter = ModelDrafter(Setting(argument=model, context=256, config=config))
    for rank, prompt in enumerate(prompts):
        drafter.start(rank, rank, 0, np.array(prompt, np.int32))
    return drafter


def asked(drafter: ModelDrafter, ranks: list[int], most: int) -> list[list[int]]:
    drafts = drafter.propose(np.array(ranks), np.full(len(ranks), most))
    return [drafts.tokens[begin:end].tolist() for begin, end in zip(drafts.begin[:-1], drafts.begin[1:], strict=True)]


@pytest.fixture(scope="module")
def model_dir(llm: LLM) -> str:
    return str(llm.engine.model.directory)


@pytest.fixture(scope="module")
def wanted(llm: LLM) -> tuple[list[list[int]], list[SamplingParams], list[RequestOutput]]:
    prompts, params = rows_of(llm, 8, 10, 24)
    return prompts, params, llm.generate(prompts, params)


@pytest.mark.parametrize("way", ["plain", "ahead", "tight", "tight drafts"])
def test_answers_are_those_of_plain_decoding(
    way: str, model_dir: str, wanted: tuple[list[list[int]], list[SamplingParams], list[RequestOutput]],
    other_dir: str, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Greedy and sampled rows with all that ends answers, drafted by a random model that is nearly always wrong and by
    the model itself."""
    options: dict[str, object] = {}
    if way == "ahead":
        monkeypatch.setattr("umbel.engine.build.TorchRunner", lambda *parts: AheadTorchRunner(*parts[:3]))
    elif way == "tight":
        options = {"kv_tokens": 160, "chunk": 16}
    elif way == "tight drafts":
        monkeypatch.setattr(draft_model, "KV_TOKENS", 128)
        monkeypatch.setattr(draft_model, "CHUNK", 9)
    prompts, params, expected = wanted
    for draft in (other_dir, model_dir):
        found, llm = answers(model_dir, prompts, params, speculate=f"model:{draft}", **options)
        stats = llm.stats()
        assert found == expected and stats.drafted_tokens > 5 * len(prompts)
        assert draft == model_dir or stats.accepted_tokens < stats.drafted_tokens / 4


@pytest.fixture(scope="module")
def other_dir(model_dir: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The model with other weights."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("other") / "draft"
    shutil.copytree(model_dir, folder)
    torch.manual_seed(3)
    weights = load_file(folder / "model.safetensors")
    save_file({k: torch.randn_like(v) * v.float().std() for k, v in weights.items()}, folder / "model.safetensors")
    return str(folder)


def test_the_model_as_its_own_draft_is_always_right(model_dir: str) -> None:
    """Greedy rows and rows that draw: the draft draws by their noise."""
    prompts = [[5, 30, 40 + i] for i in range(8)]
    params = [
        SamplingParams(temperature=(0.0, 0.9)[i % 2], top_k=(0, 5)[i // 2 % 2], top_p=(1.0, 0.8)[i // 4 % 2], seed=i,
                       n=1 + (i == 3), max_tokens=21, ignore_eos=True)
        for i in range(8)
    ]  # fmt: skip
    _, llm = answers(model_dir, prompts, params, speculate=f"model:{model_dir}")
    stats = llm.stats()
    assert stats.accepted_tokens == stats.drafted_tokens > 100
    _, plain = answers(model_dir, prompts, params)
    assert stats.steps < plain.stats().steps / 3


@pytest.mark.nightly
@pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are interpreted only where there is no GPU")
def test_so_it_is_on_the_kernels_of_gpus(llm: LLM, model_dir: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Model and draft both by recorded steps, a step ahead."""
    pytest.importorskip("triton", reason="Triton is not installed here")
    prompts = [[5, 6, 7, 8, 20], [5, 6, 7, 8, 21]]
    params = [SamplingParams(temperature=t, seed=1, max_tokens=7, ignore_eos=True) for t in (0.0, 0.8)]
    wanted = llm.generate(prompts, params)
    on_gpu_kernels(monkeypatch)
    record_steps(monkeypatch)
    with np.errstate(all="ignore"):  # rows that are not there hold whatever was in memory
        found, tested = answers(model_dir, prompts, params, speculate=f"model:{model_dir}", chunk=64)
    assert [o.outputs[0].token_ids for o in found] == [o.outputs[0].token_ids for o in wanted]
    assert tested.stats().accepted_tokens > 3


def test_what_is_there_is_not_computed_again(model_dir: str) -> None:
    """Prompts that begin alike are read once, tokens that come true are not read again, others are put right."""
    shared = list(range(5, 45))
    drafter = drafting(model_dir, [[*shared, 50], [*shared, 51], [*shared, 50]])
    first = asked(drafter, [0, 1, 2], 4)
    assert first[0] == first[2] and drafter.computed_tokens == 41 + 1 + 1 + 3 * 3
    before = drafter.computed_tokens
    drafter.extend(np.array([0]), np.array(first[0][:3], np.int32), np.array([0, 3]))
    assert asked(drafter, [0], 1)[0] == first[0][3:] and drafter.computed_tokens == before + 1
    wrong = [(first[1][0] + 1) % 40, 7]
    drafter.extend(np.array([1]), np.array(wrong, np.int32), np.array([0, 2]))
    found = asked(drafter, [1], 3)
    assert found == asked(drafting(model_dir, [[*shared, 51, *wrong]]), [0], 3)
    for rank in range(3):
        drafter.end(rank, done=True)
    assert drafter._pages.take(drafter._pages.size and draft_model.KV_TOKENS // 4) is not None


def test_the_memory_of_a_draft_is_taken_from_that_of_the_model(model_dir: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and values of the draft's own pool, which holds a fixed number of tokens."""
    monkeypatch.setattr("umbel.engine.local.machine_of", lambda device: named("h100"))
    with LLM(model_dir, **SMALL, speculate=f"model:{model_dir}") as llm:  # type: ignore[arg-type]
        spec = llm.spec
        each = 2 * 4 * spec.n_layers * spec.n_kv_heads * spec.head_dim
        taken = named("h100").memory_bytes - llm.engine.machine.memory_bytes
    assert draft_model.KV_TOKENS * each <= taken <= 1.01 * draft_model.KV_TOKENS * each


def test_a_draft_that_does_not_belong_to_the_model_is_refused(model_dir: str, tmp_path: Path) -> None:
    def refused(folder: Path, match: str) -> None:
        with pytest.raises(UsageError, match=match):
            LLM(model_dir, **SMALL, speculate=f"model:{folder}")  # type: ignore[arg-type]

    def changed(name: str, file: str, old: str, new: str) -> Path:
        folder = tmp_path / name
        shutil.copytree(model_dir, folder)
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new))
        return folder

    context = json.loads((Path(model_dir) / "config.json").read_text())["max_position_embeddings"]
    short = changed("short", "config.json", f'"max_position_embeddings": {context}', '"max_position_embeddings": 16')
    refused(short, f"context is 16 tokens, and the model's {context}")
    refused(path("draft"), "the draft model has another tokenizer|tokens, and the model")
    for bad in ("model", "model:", "ngram:x"):
        with pytest.raises(UsageError, match=f"speculate='{bad}': must be one of .*model:PATH"):
            EngineConfig("demo", speculate=bad)
