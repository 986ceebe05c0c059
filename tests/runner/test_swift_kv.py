"""SwiftKV against a naive decoder of the same weights, and what it does not compute."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from tests.runner.naive_flow import NaiveDecoder
from tests.tiny_models import make_model
from umbel import LLM, SamplingParams
from umbel.attention.base import AttentionBackend
from umbel.errors import ModelError, UsageError
from umbel.ir.step import Step
from umbel.ir.workload import Workload
from umbel.kernels.place import Place
from umbel.runner.flow.passing import FlowingRows

LAYERS, DRAWN = 4, 6
GREEDY = SamplingParams(temperature=0.0, max_tokens=DRAWN, ignore_eos=True, logprobs=0)
PROMPTS = [[(i * 31 + j * 7) % 290 + 3 for j in range(20 + 9 * i)] for i in range(3)]


def engine(model: Path, layers: float = 0.5, **options: Any) -> LLM:
    asked = {"technique": f"swiftkv:layers={layers}", "allow_lossy": True, "speculate": "off"}
    return LLM(str(model), **{"device": "cpu", "dtype": "float32", **asked, **options})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("swift") / "model", "qwen3", num_hidden_layers=LAYERS)


def train(source: Path, directory: Path, first: int) -> Path:
    """A checkpoint with other projections for the layers from `first` on, under the published names."""
    make_model(directory, "qwen3", num_hidden_layers=LAYERS)
    rng, tensors = np.random.default_rng(5), load_file(source / "model.safetensors")
    for name in list(tensors):
        layer = int(name.split(".")[2]) if name.startswith("model.layers.") else -1
        if layer >= first and name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")):
            own = tensors[name]
            noise = rng.standard_normal(own.shape, np.float32)
            tensors[name.replace("_proj.", "_proj_swiftkv.")] = own + np.float32(0.5) * own.std() * noise
    tensors["model.norm_swiftkv.weight"] = 1 + 0.3 * rng.standard_normal(64, np.float32)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


@pytest.fixture(scope="module")
def trained(model: Path) -> Path:
    return train(model, model.parent / "trained", 2)


def check(llm: LLM, naive: NaiveDecoder) -> None:
    """Greedy tokens are the naive decoder's, and log-probabilities are near."""
    for prompt, output in zip(PROMPTS, llm.generate(PROMPTS, GREEDY, use_tqdm=False), strict=True):
        answer = output.outputs[0]
        tokens, logprobs = naive.greedy(prompt, DRAWN)
        assert list(answer.token_ids) == tokens
        assert answer.logprobs is not None
        found = [one[token].logprob for one, token in zip(answer.logprobs, tokens, strict=True)]
        np.testing.assert_allclose(found, logprobs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cut", [1, 2, 4])
def test_answers_are_those_of_a_naive_decoder_of_the_same_weights(model: Path, cut: int) -> None:
    check(engine(model, cut / LAYERS), NaiveDecoder(model, cut))


def test_keys_of_the_first_later_layer_are_exact(model: Path) -> None:
    """They are made of the layer's own input, so that one layer less than all loses nothing."""
    check(engine(model, 3 / LAYERS), NaiveDecoder(model))


def test_trained_projections_are_used_where_a_checkpoint_has_them(model: Path, trained: Path) -> None:
    check(engine(trained), NaiveDecoder(trained, 2))
    plain, own = (engine(path, 1) for path in (trained, model))
    answers = [[o.outputs[0].token_ids for o in llm.generate(PROMPTS, GREEDY, use_tqdm=False)] for llm in (plain, own)]
    assert answers[0] == answers[1]  # the model itself is what it was


def test_a_cut_that_was_not_trained_is_refused(trained: Path) -> None:
    with pytest.raises(UsageError, match=r"1 of 4 layers .* trained for 2: swiftkv:layers=0.5"):
        engine(trained, 0.25)


def test_trained_projections_that_do_not_fit_are_refused(model: Path, tmp_path: Path) -> None:
    torn = train(model, tmp_path / "torn", 2)
    tensors = load_file(torn / "model.safetensors")
    name = "model.layers.3.self_attn.v_proj_swiftkv.weight"
    save_file({**tensors, name: tensors[name][:32]}, torn / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=rf"{name} is F32 \[32, 64\]: \[64, 64\] of floats are needed"):
        engine(torn)


class Counting:
    """A backend that counts the rows whose attention each layer computes."""

    def __init__(self, inner: AttentionBackend, rows: list[int]):
        self.inner, self.rows, self.name = inner, rows, inner.name

    def prepare(self, step: Step) -> int:
        return self.inner.prepare(step)

    def place(self, layer: int) -> Place:
        return self.inner.place(layer)

    def attend(self, layer: int, q: torch.Tensor, **more: Any) -> torch.Tensor:
        self.rows[layer] += len(q)
        return self.inner.attend(layer, q, **more)


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Rows of attention by layer, of all engines."""
    found, begin = [0] * LAYERS, FlowingRows.begin
    counted = lambda self, group, attention: begin(self, group, Counting(attention, found))  # noqa: E731
    monkeypatch.setattr(FlowingRows, "begin", counted)
    yield found


def test_only_tokens_that_are_drawn_from_meet_the_later_layers(model: Path, rows: list[int]) -> None:
    """Eight rows on one run that steps compute by itself: c T + (L - c) wanted tokens and layers, as planned."""
    shared = [j * 7 % 290 + 3 for j in range(96)]
    prompts = [[*shared, 5 + i, 40 + i] for i in range(8)]
    llm = engine(model, 0.5, chunk=32)
    planned = llm.plan_for(Workload.of(prompts, GREEDY)).decision("layers passed").facts
    llm.generate(prompts, GREEDY, use_tqdm=False)
    stats, wanted = llm.engine.stats(), 8 * DRAWN
    tokens = 96 + 8 * 2 + 8 * (DRAWN - 1)
    assert rows == [tokens, tokens, wanted, wanted]
    assert (stats.layers_passed, stats.layers_whole) == (2 * tokens + 2 * wanted, 4 * tokens)
    assert (planned["passed"], planned["whole"]) == (stats.layers_passed, stats.layers_whole)


def test_tokens_that_are_scored_meet_all_layers(model: Path) -> None:
    """Rows from the first one that is asked for to the end of its node."""
    llm, plain = engine(model), NaiveDecoder(model, 2)
    asked = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0)
    (output,) = llm.generate([PROMPTS[0]], asked, use_tqdm=False)
    assert output.prompt_logprobs is not None
    for i in (1, 7, len(PROMPTS[0]) - 1):
        token = PROMPTS[0][i]
        expected = float(plain.logits(PROMPTS[0][:i]).log_softmax(0)[token])
        assert output.prompt_logprobs[i][token].logprob == pytest.approx(expected, abs=1e-4)


def test_proposed_tokens_do_not_change_answers(model: Path) -> None:
    prompts = [[5, 6, 7, 8, 9, 10] * 6]
    found = [engine(model, speculate=who).generate(prompts, GREEDY, use_tqdm=False) for who in ("off", "lookup")]
    assert found[0][0].outputs[0].token_ids == found[1][0].outputs[0].token_ids
