"""The stage for Ray Data gives the answers of the command, however a dataset is cut; bad rows fail alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tiny_models import make_model
from umbel.batch.call import run
from umbel.errors import UsageError
from umbel.ray import Stage

DRAWN = {"temperature": 0.8, "max_tokens": 6}
OPTIONS = {"dtype": "float32", "device": "cpu"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_model(tmp_path_factory.mktemp("stage") / "llama", "llama", seed=3))


@pytest.fixture(scope="module")
def stage(tiny: str) -> Stage:
    return Stage(tiny, DRAWN, **OPTIONS)


def texts(i: int) -> str:
    return f"group {i % 4}: the same words for all of it, then {i}"


def columns(rows: list[dict[str, Any]]) -> dict[str, Any]:
    found = {name: np.empty(len(rows), object) for name in rows[0]}
    for name, column in found.items():
        column[:] = [row[name] for row in rows]
    return found


def test_blocks_have_the_draws_of_the_command(stage: Stage, tiny: str, tmp_path: Path) -> None:
    rows = [{"prompt": texts(i), "key": i} for i in range(30)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"prompt": row["prompt"]}) + "\n" for row in rows))
    run(tmp_path / "in.jsonl", tmp_path / "out.jsonl", model=tiny, threads=1, **DRAWN, **OPTIONS)
    wanted = [json.loads(line)["text"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    turned = [rows[i] for i in np.random.default_rng(1).permutation(len(rows))]
    found: dict[int, str] = {}
    for block in (turned[:11], turned[11:]):
        out = stage(columns(block))
        assert out["prompt"].tolist() == [row["prompt"] for row in block]
        found |= zip(out["key"].tolist(), out["text"].tolist(), strict=True)
    assert [found[i] for i in range(30)] == wanted and len(set(wanted)) > 20


def test_parameters_are_read_from_columns_and_bad_rows_fail_alone(stage: Stage) -> None:
    rows = [
        {"prompt": [5, 6, 7], "key": "a", "max_tokens": 3, "n": None},
        {"prompt": [5, 6, 7], "key": "b", "max_tokens": -1, "n": None},
        {"prompt": "", "key": "c", "max_tokens": 3, "n": None},
        {"prompt": "x", "key": "d", "max_tokens": 2, "n": 2},
    ]
    out = stage(columns(rows))
    codes = [None if error is None else error["code"] for error in out["error"]]
    assert codes == [None, "invalid_value", "empty_prompt", None]
    assert len(out["token_ids"][0]) <= 3 and out["text"][1] is None
    assert [choice["finish_reason"] for choice in out["choices"][3]] and len(out["choices"][3]) == 2


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"text": "x"}, "no column 'prompt' or 'messages', only 'text'"),
        ({"prompt": "x"}, "no column 'key': give each row its number"),
        ({"prompt": "x", "key": 1, "text": "y"}, "column 'text': answers have this name"),
    ],
)
def test_columns_that_are_missing_or_taken_are_named(stage: Stage, row: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        stage(columns([row]))
