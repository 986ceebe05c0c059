"""`umbel.map`: tables of every kind come back as they were, with the answers that the command gives in columns."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest

import umbel
from tests.jobs.fakes import FakeEngine
from umbel.batch import loading
from umbel.cli.main import main
from umbel.errors import EmptyInput, InputError, JobStopped, UsageError
from umbel.ir.plan import Plan
from umbel.ir.request import Output
from umbel.ir.workload import Workload

PROMPT = "Say {text} again"
COLUMNS = {"text": ["one", "two", None, "four"], "label": [1, 2, 3, 4], "max_tokens": [1, 2, 3, 3]}
ADDED = ["text", "token_ids", "finish_reason", "usage", "error"]


@pytest.fixture(autouse=True)
def no_traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Temporary files lie in a folder of their own, which is empty at the end."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield
    assert not list(folder.iterdir())


@pytest.fixture
def answers(model: str, engine: FakeEngine, tmp_path: Path) -> list[dict[str, Any]]:
    """What the command answers to the rows of `COLUMNS`, from a Parquet file."""
    source, out = tmp_path / "in.parquet", tmp_path / "by_command.jsonl"
    pyarrow.parquet.write_table(pa.table(COLUMNS), source)
    assert main(["run", str(source), "-o", str(out), "-m", model, "--prompt", PROMPT, "--keep", "none", "-q"]) == 3
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_an_arrow_table(model: str, answers: list[dict[str, Any]]) -> None:
    table = pa.table(COLUMNS)
    found = umbel.map(table, PROMPT, model=model, quiet=True)
    assert found.column_names == ["input_text", "label", "max_tokens", *ADDED]
    assert found.select(["input_text", "label", "max_tokens"]).equals(
        table.rename_columns(["input_text", "label", "max_tokens"])
    )
    for row, answer in zip(found.to_pylist(), answers, strict=True):
        assert [row[name] for name in ADDED] == [answer.get(name) for name in ADDED]
    assert found["error"][2].as_py()["code"] == "missing_required_parameter" and found["error"].null_count == 3


def test_pandas_keeps_its_index_and_types(model: str, answers: list[dict[str, Any]]) -> None:
    frame = pd.DataFrame(COLUMNS, index=pd.Index([7, 3, 3, 9], name="key"))
    frame["when"] = pd.to_datetime(["2020-01-01"] * 4).tz_localize("UTC")
    frame["kind"] = pd.Categorical(["a", "b", "a", "b"])
    frame["thing"] = [object(), {1}, 2, "3"]  # which no file could hold, and none needs
    found = umbel.map(frame, PROMPT, model=model, quiet=True)
    assert found.index.equals(frame.index) and found["text"].tolist()[:2] == [a["text"] for a in answers[:2]]
    assert found["text"].isna().tolist() == [False, False, True, False]
    own = ["label", "max_tokens", "when", "kind", "thing"]
    pd.testing.assert_frame_equal(found[own], frame[own])
    assert list(found.columns) == ["input_text", *own, *ADDED] and list(frame.columns) == ["text", *own]


def test_polars(model: str, answers: list[dict[str, Any]]) -> None:
    frame = pl.DataFrame(COLUMNS).with_columns(pl.col("text").cast(pl.Categorical))
    found = umbel.map(frame, PROMPT, model=model, quiet=True)
    assert isinstance(found, pl.DataFrame) and found.columns == ["input_text", "label", "max_tokens", *ADDED]
    assert found["text"].to_list() == [a["text"] for a in answers] and found["input_text"].dtype == pl.Categorical


def test_a_list_of_dicts(model: str, answers: list[dict[str, Any]]) -> None:
    rows = [dict(zip(COLUMNS, cells, strict=True)) for cells in zip(*COLUMNS.values(), strict=True)]
    rows[1]["own"] = {"only": [1, "here"]}
    found = umbel.map(rows, PROMPT, model=model, quiet=True)
    assert [row["text"] for row in found] == [a["text"] for a in answers]
    assert found[1]["own"] == {"only": [1, "here"]} and "own" not in found[0]
    assert list(found[0]) == ["input_text", "label", "max_tokens", *ADDED] and rows[0]["text"] == "one"


def test_a_dataset_in_the_order_of_its_indices(model: str, engine: FakeEngine) -> None:
    datasets = pytest.importorskip("datasets")
    found = umbel.map(datasets.Dataset.from_dict(COLUMNS).select([3, 0]), PROMPT, model=model, quiet=True)
    assert isinstance(found, datasets.Dataset) and found["label"][:] == [4, 1]
    same = umbel.map(pa.table(COLUMNS).take([3, 0]), PROMPT, model=model, quiet=True)
    assert found.with_format("arrow")[:].to_pylist() == same.to_pylist()
    assert found["input_text"][:] == ["four", "one"]


class Stream:
    """A table of some other library."""

    def __arrow_c_stream__(self, schema: object = None) -> object:
        return pa.table(COLUMNS).__arrow_c_stream__(schema)


def test_what_speaks_arrow_comes_back_as_an_arrow_table(model: str, answers: list[dict[str, Any]]) -> None:
    found = umbel.map(Stream(), PROMPT, model=model, quiet=True)
    assert isinstance(found, pa.Table) and found["text"].to_pylist() == [a["text"] for a in answers]


def test_with_out_the_same_call_continues(model: str, engine: FakeEngine, tmp_path: Path) -> None:
    frame = pd.DataFrame({"q": [f"text {i}" for i in range(6)], "id": [f"r{i}" for i in range(6)]})
    out = tmp_path / "o.parquet"
    ask = partial(umbel.map, frame, "{q}", model=model, out=out, max_tokens=3, id="id", quiet=True)
    first = ask(max_output_tokens_total=7)
    done = int(first["error"].isna().sum())
    assert 0 < done < 6 and first["error"].dropna().map(lambda e: e["code"]).eq("budget_exceeded").all()
    second = ask()
    assert second["error"].isna().all() and len(engine.seen) == 6
    assert ask().equals(second) and len(engine.seen) == 6
    table = pyarrow.parquet.read_table(out)
    assert table["custom_id"].to_pylist() == frame["id"].tolist() and table["q"].to_pylist() == frame["q"].tolist()
    assert {path.name for path in tmp_path.iterdir()} == {"o.parquet", "o.parquet.umbel", "temporary"}
    with pytest.raises(UsageError, match=r"belongs to another job; what differs(?s:.*)input\.sha256"):
        umbel.map(frame[:5], "{q}", model=model, out=out, max_tokens=3, id="id", quiet=True)


class Stopped(FakeEngine):
    """Sends this process a signal behind its second answer."""

    def execute(self, workload: Workload, plan: Plan | None = None) -> Iterator[Output]:
        for i, output in enumerate(super().execute(workload, plan)):
            yield output
            if i == 1:
                os.kill(os.getpid(), signal.SIGINT)


def test_a_stop_says_whether_anything_is_kept(model: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(loading, "_load", lambda *given: Stopped())
    rows = [{"prompt": f"text {i}", "max_tokens": 3} for i in range(6)]
    with pytest.raises(JobStopped, match="nothing kept: out='answers"):
        umbel.map(rows, model=model, quiet=True)
    with pytest.raises(JobStopped, match="run it again to continue"):
        umbel.map(rows, model=model, out=tmp_path / "o.arrow", quiet=True)
    monkeypatch.setattr(loading, "_load", lambda *given: FakeEngine())
    assert all(row["error"] is None for row in umbel.map(rows, model=model, out=tmp_path / "o.arrow", quiet=True))


def test_chats_prompts_and_labels(model: str, engine: FakeEngine) -> None:
    chat = [{"role": "user", "content": "hello"}]
    (row,) = umbel.map([{"messages": chat, "max_tokens": 2}], model=model, quiet=True)
    assert row["error"] is None and row["messages"] == chat and row["usage"]["completion_tokens"] == 2
    (row,) = umbel.map([{"prompt": "a", "x": "b"}], "{x}", model=model, include_prompt=True, max_tokens=2, quiet=True)
    assert (row["prompt"], row["input_prompt"]) == ("b", "a")


@pytest.mark.parametrize(
    ("data", "given", "told"),
    [
        (pa.table(COLUMNS), {"prompt": "{txt}"}, r"prompt: no column 'txt' \(did you mean 'text'\?\)"),
        (pa.table(COLUMNS), {}, r"no column 'prompt' or 'messages': give prompt='... {column}', from text, label"),
        (pa.table([[1], [2]], ["a", "a"]), {"prompt": "{a}"}, "several columns named 'a'"),
        ({"a": [1]}, {"prompt": "{a}"}, "a dict is no table"),
        (["a"], {"prompt": "{a}"}, "a list is no table"),
        (pa.table(COLUMNS), {"prompt": "{text}", "errors": "e.jsonl"}, "errors: rows that failed stay in their place"),
        (pa.table(COLUMNS), {"prompt": "{text}", "order": "finish"}, "order: rows stay in their order"),
        (pa.table(COLUMNS), {"prompt": "{text}", "out": "x.jsonl"}, "out='x.jsonl': answers are read back"),
        (pa.table(COLUMNS), {"prompt": "{text}", "out": "/no/where.parquet"}, "there is no directory /no"),
        (pa.table(COLUMNS), {"prompt": "{text}", "temprature": 1}, "did you mean 'temperature'"),
        (pd.DataFrame({"a": [1, "b", {2}]}), {"prompt": "{a}"}, "cannot be written as Parquet"),
    ],
)
def test_what_cannot_be_is_refused(data: Any, given: dict[str, Any], told: str, model: str) -> None:
    with pytest.raises(UsageError, match=told):
        umbel.map(data, model=model, quiet=True, **given)


def test_tables_without_a_row_that_can_run(model: str, engine: FakeEngine) -> None:
    with pytest.raises(EmptyInput):
        umbel.map([], model=model)
    with pytest.raises(InputError, match="null"):
        umbel.map(pa.table({"a": pa.array([None] * 50, pa.string())}), "{a}", model=model, quiet=True)
