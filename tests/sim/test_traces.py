"""Traces become workloads that share exactly the blocks, or the text, that were shared there."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from umbel.errors import UsageError
from umbel.plan.passes.prefix import build_forest
from umbel.sim.traces import read_trace


class Letters:
    """A token a character."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [list(map(ord, text)) for text in texts]


def write(path: Path, records: list[dict[str, object]]) -> Path:
    with gzip.open(path, "wt") as out:
        out.writelines(json.dumps(record) + "\n" for record in records)
    return path


def test_equal_blocks_are_equal_tokens(tmp_path: Path) -> None:
    rows = [([0, 1, 2], 40, 7), ([0, 1, 3], 48, 2), ([4], 16, 1), ([0, 1], 35, 9)]  # ids, prompt, answer
    records = [{"hash_ids": ids, "input_length": n, "output_length": out} for ids, n, out in rows]
    found = read_trace(write(tmp_path / "t.jsonl.gz", records), "blocks16", 1000)
    workload = found.workload
    assert np.diff(workload.offsets).tolist() == [40, 48, 16, 35]
    assert found.lengths.tolist() == [7, 2, 1, 9]
    assert all(params.max_tokens == 9 for params in workload.params)
    assert workload.prompt(0)[:32].tolist() == workload.prompt(1)[:32].tolist() == workload.prompt(3)[:32].tolist()
    assert build_forest(workload).n_tokens == 32 + 8 + 16 + 16 + 3  # what no id covers is the row's own


def test_rows_are_cut_at_what_the_model_holds(tmp_path: Path) -> None:
    records = [{"hash_ids": [i], "input_length": 10, "output_length": 5 + i} for i in range(4)]
    path = write(tmp_path / "t.jsonl.gz", records)
    found = read_trace(path, "mooncake", 16)
    assert (len(found.workload), found.dropped) == (2, 2)
    assert len(read_trace(path, "mooncake", 100, rows=3).workload) == 3


def test_lengths_alone_share_nothing(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens\n0.0,30,4\n0.1,20,0\n")
    found = read_trace(path, "lengths", 1000)
    assert build_forest(found.workload).n_tokens == 50
    assert found.lengths.tolist() == [4, 1]  # an answer has a token at least


def test_agent_prompts_are_put_together_again(tmp_path: Path) -> None:
    records: list[dict[str, object]] = [
        {"session": 0, "base": -1, "keep_chars": 0, "suffix": "system: hi", "output": "ok"},
        {"session": 0, "base": 0, "keep_chars": 7, "suffix": " there", "output": "well"},
        {"session": 1, "base": -1, "keep_chars": 0, "suffix": "other", "output": ""},
        {"session": 1, "base": 0, "keep_chars": 5, "suffix": "!", "output": "x"},
    ]
    found = read_trace(write(tmp_path / "t.jsonl.gz", records), "agent", 1000, Letters())
    prompts = ["".join(map(chr, found.workload.prompt(row).tolist())) for row in range(4)]
    assert prompts == ["system: hi", "system: there", "other", "other!"]
    assert found.lengths.tolist() == [2, 4, 1, 1]
    with pytest.raises(UsageError, match="tokenizer"):
        read_trace(tmp_path / "t.jsonl.gz", "agent", 1000)


def test_what_is_no_trace_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"a": 1}\n')
    with pytest.raises(UsageError, match=r"t\.jsonl: cannot be read as a mooncake trace \(KeyError"):
        read_trace(path, "mooncake", 100)
    with pytest.raises(UsageError, match=r"none\.csv: cannot be read"):
        read_trace(tmp_path / "none.csv", "lengths", 100)
    with pytest.raises(UsageError, match="must be one of mooncake"):
        read_trace(path, "moon", 100)
