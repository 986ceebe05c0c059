"""Embeddings, classes, scores and ranks over HTTP are those of `LLM.embed`, `classify` and `similarity`."""

from __future__ import annotations

from pathlib import Path

import httpx
import openai
import pytest

from tests.pooling_models import make_base, make_classifier, with_modules
from tests.serve.conftest import listening
from umbel.api import LLM

TEXTS = ["the sea", "a hill by the sea", "nothing"]


def loaded(directory: Path) -> LLM:
    return LLM(str(directory), dtype="float32", device="cpu", threads=1)


def test_embeddings(tmp_path: Path) -> None:
    with loaded(with_modules(make_base(tmp_path / "m", "qwen3"))) as llm, listening(llm) as url:
        expected = [output.outputs.embedding for output in llm.embed(TEXTS)]
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none") as sdk:  # which asks for base64
            found = sdk.embeddings.create(model="tiny", input=TEXTS)
        assert [one.index for one in found.data] == [0, 1, 2]
        for one, own in zip(found.data, expected, strict=True):
            assert one.embedding == pytest.approx(own, rel=1e-6)
        scores = httpx.post(f"{url}/score", json={"text_1": TEXTS[0], "text_2": TEXTS[1:]}).json()["data"]
        (query, *others) = expected
        cosines = [sum(a * b for a, b in zip(query, one, strict=True)) for one in others]
        assert [one["score"] for one in scores] == pytest.approx(cosines, abs=1e-5)
        ranked = httpx.post(f"{url}/v1/rerank", json={"query": TEXTS[0], "documents": TEXTS[1:], "top_n": 1}).json()
        best = max(range(2), key=cosines.__getitem__)
        assert [one["index"] for one in ranked["results"]] == [best]
        assert httpx.post(f"{url}/classify", json={"input": TEXTS}).status_code == 400


def test_classes(tmp_path: Path) -> None:
    with loaded(make_classifier(tmp_path / "m", "qwen3", num_labels=3)) as llm, listening(llm) as url:
        expected = [output.outputs.probs for output in llm.classify(TEXTS)]
        found = httpx.post(f"{url}/classify", json={"input": TEXTS}).json()["data"]
        assert [one["probs"] for one in found] == [pytest.approx(own, rel=1e-6) for own in expected]
        assert httpx.post(f"{url}/v1/completions", json={"prompt": "a"}).status_code == 400
