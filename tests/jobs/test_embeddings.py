"""Jobs whose rows want vectors: as many numbers as from Python, in every format, beside rows that write."""

from __future__ import annotations

import json
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
