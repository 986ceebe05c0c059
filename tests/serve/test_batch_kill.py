"""Servers that are killed in the middle of a batch: the next one ends it, nothing lost, nothing doubled."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.held import wait_until
from tests.serve.serving import serving
from tests.serve.test_batches import client_of, ended, lines, made, packed, texts, timeless
from umbel.batch.call import run

OPTIONS: dict[str, Any] = {"dtype": "float32", "device": "cpu", "threads": 1, "chunk": 64, "quiet": True}


def expected(directory: Path, folder: Path, rows: list[Any]) -> list[Any]:
    """What `umbel run` writes for the same rows."""
    (folder / "in.jsonl").write_bytes(packed(rows))
    run(folder / "in.jsonl", folder / "out.jsonl", model=str(directory), served_model_name=["tiny"], **OPTIONS)
    return [timeless(json.loads(text)) for text in (folder / "out.jsonl").read_text().splitlines()]


def until_done(client: openai.OpenAI, batch: Any, count: int) -> None:
    wait_until(lambda: client.batches.retrieve(batch.id).request_counts.completed >= count)


@pytest.mark.slow
def test_a_killed_batch_is_ended_by_the_next_server(directory: Path, tmp_path: Path) -> None:
    rows = texts(20, tokens=6)
    with serving(directory, tmp_path / "store", held=7) as (url, process), client_of(url) as client:
        batch = made(client, rows)
        until_done(client, batch, 7)
        process.kill()
    with serving(directory, tmp_path / "store") as (url, _), client_of(url) as client:
        done = ended(client, batch)
        assert (done.status, done.request_counts.completed, done.error_file_id) == ("completed", 20, None)
        assert [one.id for one in client.batches.list()] == [batch.id]
        assert [timeless(one) for one in lines(client, done.output_file_id)] == expected(directory, tmp_path, rows)
    assert len([path for path in (tmp_path / "store").rglob("*.jsonl")]) == 2


@pytest.mark.nightly
def test_ten_kills_at_any_moment(directory: Path, tmp_path: Path, seed: int) -> None:
    rows, moments = texts(400, tokens=12), random.Random(seed)
    batch: Any = None
    for _ in range(10):
        with serving(directory, tmp_path / "store") as (url, process), client_of(url) as client:
            batch = batch or made(client, rows)
            more = moments.randrange(1, 40)
            until_done(client, batch, min(client.batches.retrieve(batch.id).request_counts.completed + more, 400))
            process.kill()
    with serving(directory, tmp_path / "store") as (url, _), client_of(url) as client:
        done = ended(client, batch)
        assert (done.status, done.request_counts.completed) == ("completed", 400)
        assert [timeless(one) for one in lines(client, done.output_file_id)] == expected(directory, tmp_path, rows)
