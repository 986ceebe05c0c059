"""Embeddings against transformers in float32, to the same bits however rows are batched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM

from tests.parameters import few_of
from tests.pooling_models import PROMPTS, loaded, make_base, states, unit, with_modules
from tests.tiny_models import make_model
from tests.tiny_types import save_tiny, tiny_config, tiny_module
from umbel import LLM, PoolingParams, SamplingParams
from umbel.errors import InvalidRequest, RowFailed, UsageError

TYPES = ("llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "olmo2", "opt", "mixtral")
SETTINGS = (
    {"prefix": "none"},
    {"prefix": "every-fork"},
    {"prefix": "every-fork", "chunk": 16},
    {"prefix": "every-fork", "kv_tokens": 160},
    {"prefix": "none", "chunk": 7},
)


def open_llm(directory: Path, **options: Any) -> LLM:
    return LLM(str(directory), dtype="float32", device="cpu", threads=1, **options)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_modules(make_base(tmp_path_factory.mktemp("embed") / "qwen3", "qwen3"))


@pytest.fixture(scope="module")
def llm(base: Path) -> Iterator[LLM]:
    with open_llm(base) as made:
        yield made


@pytest.mark.parametrize("kind", few_of(TYPES[:2], TYPES[2:]))
def test_last_tokens_are_those_of_transformers(tmp_path: Path, kind: str) -> None:
    directory = make_base(tmp_path / kind, kind)
    model = loaded(directory, AutoModel)
    with open_llm(directory) as llm:
        for prompt, found in zip(PROMPTS, llm.embed(PROMPTS), strict=True):
            wanted = unit(states(model, prompt)[-1])
            assert found.error is None and found.prompt_token_ids == prompt
            np.testing.assert_allclose(found.outputs.embedding, wanted, atol=1e-5)


@pytest.mark.parametrize("options", few_of(SETTINGS[1:3], SETTINGS[3:]))
def test_bits_do_not_depend_on_neighbours(base: Path, llm: LLM, options: dict[str, Any]) -> None:
    alone = [llm.embed([prompt])[0].outputs.embedding for prompt in PROMPTS]
    with open_llm(base, **options) as other:
        assert [one.outputs.embedding for one in other.embed(PROMPTS)] == alone
        assert other.stats().computed_prompt_tokens < sum(map(len, PROMPTS)) or options["prefix"] == "none"
        assert other.stats().output_tokens == 0


def test_models_that_write_embed_too(tmp_path: Path) -> None:
    """A causal model with its head, in one batch with rows that write."""
    directory = make_model(tmp_path / "llama", "llama")
    model = loaded(directory, AutoModelForCausalLM)
    with open_llm(directory) as llm:
        found = llm.embed(PROMPTS, {"use_activation": False})
        for prompt, one in zip(PROMPTS, found, strict=True):
            np.testing.assert_allclose(one.outputs.embedding, states(model.model, prompt)[-1], rtol=1e-4, atol=1e-4)
        params = [SamplingParams(temperature=0, max_tokens=4), SamplingParams(pooling_params=PoolingParams())]
        batch = llm.intake.take([PROMPTS[0], PROMPTS[1]], params)
        outputs = {output.row: output for output in llm.execute(batch.workload)}
        assert outputs[0].outputs == llm.generate([PROMPTS[0]], params[0])[0].outputs
        assert list(outputs[1].vector or ()) == llm.embed([PROMPTS[1]])[0].outputs.embedding


def test_a_head_that_the_files_leave_out_is_not_missed(tmp_path: Path) -> None:
    """Qwen3-Embedding's config names the causal class, and its weights have no head and no prefix."""
    made = tiny_config("qwen3", tie_word_embeddings=False)
    directory = tmp_path / "model"
    save_tiny(directory, tiny_module(AutoModel._model_mapping[type(made)], made))
    text = (directory / "config.json").read_text().replace('"Qwen3Model"', '"Qwen3ForCausalLM"')
    (directory / "config.json").write_text(text)
    with_modules(directory)
    with open_llm(directory) as llm:
        wanted = unit(states(loaded(directory, AutoModel), PROMPTS[0])[-1])
        np.testing.assert_allclose(llm.embed([PROMPTS[0]])[0].outputs.embedding, wanted, atol=1e-5)
        (refused,) = llm.generate([PROMPTS[0]])
    assert refused.error is not None and "no head that writes tokens: use embed" in refused.error.message


def test_vectors_are_normalised_only_where_the_files_say_so(tmp_path: Path, base: Path) -> None:
    directory = with_modules(make_base(tmp_path / "plain", "qwen3"), normalize=False)
    state = states(loaded(directory, AutoModel), PROMPTS[0])[-1]
    with open_llm(directory) as llm:
        (plain,), (asked,) = llm.embed(PROMPTS[:1]), llm.embed(PROMPTS[:1], PoolingParams(use_activation=True))
    np.testing.assert_allclose(plain.outputs.embedding, state, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(asked.outputs.embedding, unit(state), atol=1e-6)


def test_dimensions_only_where_the_config_allows_them(tmp_path: Path, llm: LLM) -> None:
    with pytest.raises(InvalidRequest, match="is_matryoshka"):
        llm.embed(PROMPTS, PoolingParams(dimensions=8))
    directory = make_base(tmp_path / "model", "qwen3", is_matryoshka=True, matryoshka_dimensions=[8, 32])
    state = states(loaded(directory, AutoModel), PROMPTS[0])[-1]
    with open_llm(directory) as cut:
        (found,) = cut.embed(PROMPTS[:1], PoolingParams(dimensions=8))
        with pytest.raises(InvalidRequest, match="one of 8, 32"):
            cut.embed(PROMPTS, PoolingParams(dimensions=9))
    np.testing.assert_allclose(found.outputs.embedding, unit(state[:8]), atol=1e-6)


@pytest.mark.parametrize(
    ("mode", "more", "message"),
    [
        ("cls_token", (), "pools by 'pooling_mode_cls_token'"),
        ("lasttoken", ("Dense",), "has the parts 'Transformer, Pooling, Dense, Normalize'"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(
    tmp_path: Path, mode: str, more: tuple[str, ...], message: str
) -> None:
    directory = with_modules(make_base(tmp_path / "model", "llama"), mode, more=more)
    with open_llm(directory) as llm, pytest.raises(InvalidRequest, match=message):
        llm.embed(PROMPTS)


def test_each_prompt_may_have_parameters_of_its_own(llm: LLM) -> None:
    each = [PoolingParams(use_activation=False), {"use_activation": True}, None, PoolingParams(pooling_type="MEAN")]
    prompts = PROMPTS[: len(each)]
    found = [one.outputs.embedding for one in llm.embed(prompts, pooling_params=each)]
    assert found == [llm.embed([prompt], one)[0].outputs.embedding for prompt, one in zip(prompts, each, strict=True)]
    assert np.linalg.norm(found[0]) != pytest.approx(1.0, abs=1e-3)
    assert np.linalg.norm(found[1]) == pytest.approx(1.0, abs=1e-5)
    assert llm.embed([], []) == []
    with pytest.raises(UsageError, match=r"4 prompts but 2 pooling_params: give one, or one for each"):
        llm.embed(prompts, each[:2])
    with pytest.raises(UsageError, match="task='classify' in a call for 'embed'"):
        llm.embed(prompts, [*each[:3], PoolingParams(task="classify")])


def test_rows_at_fault_and_wrong_calls(llm: LLM) -> None:
    good, bad = llm.embed([PROMPTS[0], [9_999]])
    assert good.outputs.hidden_size == 64 and bad.error is not None and bad.error.code == "invalid_token_id"
    with pytest.raises(RowFailed, match="9999"):
        _ = bad.outputs.embedding
    with pytest.raises(InvalidRequest, match=r"no head for classes$"):
        llm.classify(PROMPTS)
    with pytest.raises(InvalidRequest, match="CLS"):
        PoolingParams(pooling_type="CLS")
    with pytest.raises(UsageError, match="embed, classify and encode"):
        llm.generate(PROMPTS, SamplingParams(pooling_params=PoolingParams()))
    with pytest.raises(InvalidRequest, match="logprobs with pooling_params"):
        SamplingParams(pooling_params=PoolingParams(), logprobs=3)
    assert [one.outputs.data for one in llm.encode(PROMPTS)] == [one.outputs.embedding for one in llm.embed(PROMPTS)]


def test_scores_and_ranks_are_cosines(llm: LLM) -> None:
    texts = ["Once upon a time", "the little girl", "read the weather report", "Once upon a time"]
    vectors = torch.tensor([one.outputs.embedding for one in llm.embed(texts)], dtype=torch.float64)
    wanted = (unit(vectors[:1]) * unit(vectors[1:])).sum(-1).tolist()
    found = [one.outputs.score for one in llm.score(texts[0], texts[1:])]
    assert found == pytest.approx(wanted, abs=1e-6)
    ranked = llm.rerank(texts[0], texts[1:], top_n=2)
    assert [one.index for one in ranked] == sorted(range(3), key=lambda i: -wanted[i])[:2]
    assert ranked[0].document == texts[0] and ranked[0].relevance_score == pytest.approx(1.0)


@pytest.fixture(scope="module")
def means(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_modules(make_base(tmp_path_factory.mktemp("mean") / "llama", "llama"), "mean_tokens", normalize=False)


def test_means_are_those_of_transformers(means: Path) -> None:
    model = loaded(means, AutoModel)
    with open_llm(means, prefix="every-fork", chunk=16) as llm:
        for prompt, found in zip(PROMPTS, llm.embed(PROMPTS), strict=True):
            wanted = states(model, prompt).mean(0)
            np.testing.assert_allclose(found.outputs.embedding, wanted, atol=1e-5)
        (last,) = llm.embed(PROMPTS[:1], PoolingParams(pooling_type="LAST", use_activation=True))
        np.testing.assert_allclose(last.outputs.embedding, unit(states(model, PROMPTS[0])[-1]), atol=1e-5)


@pytest.mark.parametrize("options", few_of(SETTINGS[1:4], SETTINGS[4:]))
def test_bits_of_means_do_not_depend_on_cuts(means: Path, options: dict[str, Any]) -> None:
    with open_llm(means) as llm:
        alone = [llm.embed([prompt])[0].outputs.embedding for prompt in PROMPTS]
    with open_llm(means, **options) as other:
        assert [one.outputs.embedding for one in other.embed(PROMPTS)] == alone
        assert other.stats().computed_prompt_tokens < sum(map(len, PROMPTS)) or options["prefix"] == "none"
