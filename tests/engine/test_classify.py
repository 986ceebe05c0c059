"""Classes and cross-encoder scores against transformers in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from tests.parameters import few_of
from tests.pooling_models import PROMPTS, loaded, make_base, make_classifier
from umbel import LLM, PoolingParams
from umbel.errors import InvalidRequest, ModelError, UsageError
from umbel.models.families import read_spec

TYPES = ("llama", "qwen3", "qwen2", "gemma", "gemma3_text", "mistral", "gpt2", "gpt_neox", "phi3", "opt", "mixtral")
NAMES = {"id2label": {0: "bad", 1: "good", 2: "so so"}, "label2id": {"bad": 0, "good": 1, "so so": 2}}


def open_llm(directory: Path, **options: Any) -> LLM:
    return LLM(str(directory), dtype="float32", device="cpu", threads=1, **options)


@torch.inference_mode()
def logits(model: PreTrainedModel, ids: list[int]) -> Tensor:
    found: Tensor = model(torch.tensor([ids]), use_cache=False).logits[0]
    return found


@pytest.mark.parametrize("kind", few_of(TYPES[:2], TYPES[2:]))
def test_probabilities_are_those_of_transformers(tmp_path: Path, kind: str) -> None:
    directory = make_classifier(tmp_path / kind, kind, **NAMES)
    model = loaded(directory, AutoModelForSequenceClassification)
    with open_llm(directory) as llm, open_llm(directory, prefix="every-fork", chunk=16) as other:
        found = llm.classify(PROMPTS)
        for prompt, one in zip(PROMPTS, found, strict=True):
            wanted = logits(model, prompt).softmax(-1)
            np.testing.assert_allclose(one.outputs.probs, wanted, atol=1e-5)
            assert one.outputs.label == model.config.id2label[int(wanted.argmax())] and one.outputs.num_classes == 3
        assert [one.outputs for one in other.classify(PROMPTS)] == [one.outputs for one in found]


@pytest.mark.parametrize(
    ("config", "activation"),
    [
        ({"problem_type": "multi_label_classification"}, torch.sigmoid),
        ({"problem_type": "regression", "num_labels": 1}, torch.clone),
        ({"num_labels": 1}, torch.sigmoid),
        ({"num_labels": 2}, lambda x: x.softmax(-1)),
        (
            {"num_labels": 1, "sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}},
            torch.clone,
        ),
    ],
)
def test_activations_are_as_the_config_says(tmp_path: Path, config: dict[str, Any], activation: Any) -> None:
    directory = make_classifier(tmp_path / "model", "llama", **config)
    assert not any("config.json: not used" in note for note in read_spec(directory).notes)
    numbers = logits(loaded(directory, AutoModelForSequenceClassification), PROMPTS[1])
    with open_llm(directory) as llm:
        (found,) = llm.classify(PROMPTS[1:2])
        (plain,) = llm.classify(PROMPTS[1:2], PoolingParams("classify", use_activation=False))
    np.testing.assert_allclose(found.outputs.probs, activation(numbers), atol=1e-5)
    np.testing.assert_allclose(plain.outputs.probs, numbers, atol=1e-5, rtol=1e-5)


def test_the_last_token_that_is_no_padding_is_read(tmp_path: Path) -> None:
    """As in transformers, where a text ends with the token that pads."""
    directory = make_classifier(tmp_path / "model", "qwen3", pad_token_id=0)
    model = loaded(directory, AutoModelForSequenceClassification)
    prompts = [[5, 6, 0, 7], [5, 6, 7, 0], [5, 6, 0, 0, 0], [0, 0]]
    with open_llm(directory) as llm:
        for prompt, one in zip(prompts, llm.classify(prompts), strict=True):
            np.testing.assert_allclose(one.outputs.probs, logits(model, prompt).softmax(-1), atol=1e-5)


def test_a_cross_encoder_scores_pairs_as_one_text(tmp_path: Path) -> None:
    directory = make_classifier(tmp_path / "model", "llama", num_labels=1)
    model = loaded(directory, AutoModelForSequenceClassification)
    query, documents = "the weather report", ["Once upon a time", "read the report again", "the little girl"]
    with open_llm(directory) as llm:
        found = [one.outputs.score for one in llm.score(query, documents)]
        ids = [[*llm.tokenizer.encode([query])[0], *llm.tokenizer.encode([one])[0]] for one in documents]
        ranked = llm.rerank(query, documents)
    wanted = [float(logits(model, one).sigmoid()) for one in ids]
    assert found == pytest.approx(wanted, abs=1e-5)
    assert [one.index for one in ranked] == np.argsort(-np.array(wanted)).tolist()


def test_what_a_model_does_not_give_is_said_by_name(tmp_path: Path) -> None:
    directory = make_classifier(tmp_path / "model", "llama", **NAMES)
    with open_llm(directory) as llm:
        with pytest.raises(InvalidRequest, match="use classify, or the model without that head"):
            llm.embed(PROMPTS)
        with pytest.raises(InvalidRequest, match="heads for classes read the last token"):
            llm.classify(PROMPTS, {"pooling_type": "MEAN"})
        with pytest.raises(UsageError, match="3 classes"):
            llm.score("one", ["other"])
        with pytest.raises(InvalidRequest, match="no head that writes tokens: use classify"):
            llm.choose(PROMPTS, ["a", "b"])
        (refused,) = llm.generate([PROMPTS[0]])
        assert refused.error is not None and refused.error.param == "task"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"problem_type": "other"}, "problem_type='other'"),
        ({"id2label": {"0": "a", "2": "b"}}, "its numbers must be those from 0"),
        ({"num_labels": 7, "id2label": None}, r"score.weight is \[2, 64\], config.json makes it \[7, 64\]"),
        ({"sentence_transformers": {"activation_fn": "os.system"}}, "activation_fn='os.system'"),
        ({"architectures": ["LlamaForTokenClassification"]}, "LlamaForCausalLM, LlamaModel and LlamaForSequence"),
    ],
)
def test_configs_that_are_not_understood_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    import json

    directory = make_classifier(tmp_path / "model", "llama")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ModelError, match=message):
        open_llm(directory)


def test_a_missing_head_is_said_by_name(tmp_path: Path) -> None:
    directory = make_base(tmp_path / "model", "llama")
    text = (directory / "config.json").read_text().replace('"LlamaModel"', '"LlamaForSequenceClassification"')
    (directory / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"tensors missing, first score\.weight"):
        open_llm(directory)
