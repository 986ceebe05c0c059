"""Jobs whose rows want vectors: as many numbers as from Python, in every format, beside rows that write."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

import umbel
from tests.pooling_models import make_classifier
from umbel import LLM
from umbel.errors import UsageError
from umbel.jobs.verify import verify

TEXTS = ["Once upon a time", "there was a little girl", "the quick brown fox", "Once upon a time"]


def write_lines(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def answers(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def run(source: Path, target: Path, **options: Any) -> Path:
    umbel.run(source, target, **{"model": "demo", "dtype": "float32", "device": "cpu", "quiet": True} | options)
    assert not verify(source, target).faults
    return target


@pytest.fixture(scope="module")
def vectors() -> list[list[float]]:
    with LLM("demo", dtype="float32", device="cpu") as llm:
        return [one.outputs.embedding for one in llm.embed(TEXTS)]


def test_every_format_has_the_vectors(tmp_path: Path, vectors: list[list[float]]) -> None:
    source = write_lines(tmp_path / "in.jsonl", [{"prompt": text, "label": i} for i, text in enumerate(TEXTS)])
    rows = answers(run(source, tmp_path / "out.jsonl", task="embed"))
    assert [row["embedding"] for row in rows] == vectors and [row["label"] for row in rows] == [0, 1, 2, 3]
    assert rows[0].keys() == {"custom_id", "label", "embedding", "usage", "error"}
    table = pyarrow.parquet.read_table(run(source, tmp_path / "out.parquet", task="embed"))
    assert table.schema.field("embedding").type == pyarrow.list_(pyarrow.float32(), 256)
    assert table.column("embedding").to_pylist() == vectors
    lines = run(source, tmp_path / "out.csv", task="embed").read_text().splitlines()
    assert len(lines) == 5 and "embedding" in lines[0]


def test_rows_that_want_vectors_stand_beside_others(tmp_path: Path, vectors: list[list[float]]) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": TEXTS[0], "pooling_params": {"task": "embed"}},
        {"prompt": TEXTS[0], "max_tokens": 2, "temperature": 0},
        {"prompt": TEXTS[1], "pooling_params": {}},
        {"prompt": TEXTS[1], "pooling_params": {"task": "classify"}},
        {"prompt": TEXTS[1], "pooling_params": {"pooling": "x"}},
        {"prompt": "Answer:", "choices": [" yes", " no"]},
    ]
    found = answers(run(write_lines(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"))
    assert [found[0]["embedding"], found[2]["embedding"]] == vectors[:2]
    assert len(found[1]["token_ids"]) == 2 and found[5]["choice"] in (" yes", " no")
    assert found[3]["error"]["param"] == "task" and "no head for classes" in found[3]["error"]["message"]
    assert found[4]["error"]["code"] == "unknown_parameter"


def test_a_model_for_classes_gives_them_without_being_asked(tmp_path: Path) -> None:
    names = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
    model = make_classifier(tmp_path / "model", "llama", **names)
    source = write_lines(tmp_path / "in.jsonl", [{"prompt": text} for text in TEXTS])
    rows = answers(run(source, tmp_path / "out.jsonl", model=str(model)))
    with LLM(str(model), dtype="float32", device="cpu") as llm:
        wanted = [one.outputs for one in llm.classify(TEXTS)]
    assert [row["probs"] for row in rows] == [one.probs for one in wanted]
    assert [row["choice"] for row in rows] == [one.label for one in wanted]
    np.testing.assert_allclose([sum(row["probs"]) for row in rows], 1, atol=1e-6)
    with pytest.raises(UsageError, match="task: this model has no head that writes tokens"):
        run(source, tmp_path / "other.jsonl", model=str(model), task="generate")


def test_options_that_ask_for_what_is_not_there_are_refused(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [{"prompt": "a"}])
    for options, message in (
        ({"task": "classify"}, "--task: .*no head for classes"),
        ({"task": "embed", "dimensions": 8}, "--dimensions: .*is_matryoshka"),
        ({"pooling_type": "LAST"}, "--pooling-type: is about embeddings"),
        ({"task": "embed", "logprobs": 1}, "--logprobs: .*no text is written"),
    ):
        with pytest.raises(UsageError, match=message.replace("--", "(--)?").replace("pooling-type", "pooling.type")):
            run(source, tmp_path / "out.jsonl", **options)


def lines_to(url: str, *bodies: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"custom_id": str(i), "method": "POST", "url": url, "body": body} for i, body in enumerate(bodies)]


def bodies(path: Path) -> list[dict[str, Any]]:
    return [line["response"]["body"] for line in answers(path)]


def test_lines_of_embeddings(tmp_path: Path, vectors: list[list[float]]) -> None:
    with LLM("demo", runner="pooling") as llm:
        ids = llm.tokenizer.encode(TEXTS)
    asked = [
        {"model": "demo", "input": TEXTS[0], "encoding_format": "float"},
        {"input": TEXTS, "user": "me"},
        {"input": ids[2]},
        {"input": [ids[1], ids[0]], "encoding_format": "base64"},
        {"input": TEXTS[0], "dimensions": 8},
        {"input": ["fine", ""]},
        {"input": {"text": 1}},
    ]
    source = write_lines(tmp_path / "in.jsonl", lines_to("/v1/embeddings", *asked))
    found = bodies(run(source, tmp_path / "out.jsonl"))
    one, many, by_ids, packed, cut, empty, wrong = found
    assert one["data"] == [{"object": "embedding", "index": 0, "embedding": vectors[0]}] and one["object"] == "list"
    assert [entry["embedding"] for entry in many["data"]] == vectors
    assert many["usage"]["prompt_tokens"] == many["usage"]["total_tokens"] == sum(map(len, ids))
    assert by_ids["data"][0]["embedding"] == vectors[2]
    decoded = [np.frombuffer(b64decode(entry["embedding"]), "<f4").tolist() for entry in packed["data"]]
    assert decoded == [vectors[1], vectors[0]]
    assert cut["error"]["param"] == "dimensions" and empty["error"]["code"] == "empty_prompt"
    assert wrong["error"]["code"] == "invalid_type"


def test_lines_of_scores_and_ranks_by_embeddings(tmp_path: Path) -> None:
    with LLM("demo", dtype="float32", device="cpu") as llm:
        wanted = [one.outputs.score for one in llm.similarity(TEXTS[0], TEXTS[1:])]
        pair = llm.similarity(TEXTS[1], TEXTS[2])[0].outputs.score
    asked = [
        {"text_1": TEXTS[0], "text_2": TEXTS[1:]},
        {"queries": TEXTS[1:2], "documents": TEXTS[2:3]},
        {"text_1": "a"},
    ]
    for url in ("/score", "/v1/score"):
        name = url.replace("/", "_")
        source = write_lines(tmp_path / f"in{name}.jsonl", lines_to(url, *asked))
        one, other, missing = bodies(run(source, tmp_path / f"out{name}.jsonl"))
        assert [entry["score"] for entry in one["data"]] == wanted and other["data"][0]["score"] == pair
        assert missing["error"]["param"] == "text_2"
    documents = [{"text": TEXTS[1]}, *TEXTS[2:]]
    asked = [{"query": TEXTS[0], "documents": documents}, {"query": TEXTS[0], "documents": documents, "top_n": 1}]
    source = write_lines(tmp_path / "ranks.jsonl", lines_to("/v1/rerank", *asked))
    ranked, first = bodies(run(source, tmp_path / "ranked.jsonl"))
    order = sorted(range(3), key=lambda i: -wanted[i])
    assert [one["index"] for one in ranked["results"]] == order
    assert [one["relevance_score"] for one in ranked["results"]] == [wanted[i] for i in order]
    assert first["results"] == ranked["results"][:1] and first["results"][0]["document"] == {"text": TEXTS[3]}


def test_lines_of_a_cross_encoder(tmp_path: Path) -> None:
    model = make_classifier(tmp_path / "model", "llama", num_labels=1)
    with LLM(str(model), dtype="float32", device="cpu") as llm:
        wanted = [one.outputs.score for one in llm.score(TEXTS[0], TEXTS[1:])]
        probs = llm.classify(TEXTS[0])[0].outputs.probs
    source = write_lines(tmp_path / "in.jsonl", lines_to("/score", {"text_1": TEXTS[0], "text_2": TEXTS[1:]}))
    (found,) = bodies(run(source, tmp_path / "out.jsonl", model=str(model)))
    assert [entry["score"] for entry in found["data"]] == wanted
    source = write_lines(tmp_path / "classes.jsonl", lines_to("/classify", {"input": TEXTS[0]}))
    (found,) = bodies(run(source, tmp_path / "classes.out.jsonl", model=str(model)))
    assert found["data"] == [{"index": 0, "label": "LABEL_0", "probs": probs, "num_classes": 1}]
    source = write_lines(tmp_path / "embed.jsonl", lines_to("/v1/embeddings", {"input": TEXTS[0]}))
    (refused,) = bodies(run(source, tmp_path / "embed.out.jsonl", model=str(model)))
    assert "use classify" in refused["error"]["message"]
