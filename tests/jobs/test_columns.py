"""Columns of the input come back on their rows, in every format, and are checked by the verifier."""

from __future__ import annotations

import csv
import datetime
import decimal
import importlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest

from tests.jobs.fakes import make_job, read_rows, write_rows
from umbel.errors import UsageError
from umbel.ir.randomness import key_of
from umbel.jobs.read.formats.keeping import Keeping
from umbel.jobs.read.formats.returned import given_back, kind_back, restored
from umbel.jobs.read.prepare import prepare
from umbel.jobs.read.records import ANSWER_NAMES, ReadOptions
from umbel.jobs.read.source import Source
from umbel.jobs.verify import verify
from umbel.jobs.verify_columns import renamed
from umbel.jobs.write.answers import Renderer
from umbel.jobs.write.formats.named import format_of

ROWS: list[Any] = [
    {"custom_id": "a", "prompt": "one", "max_tokens": 2, "label": "x", "meta": {"k": [1, None]}, "text": "mine"},
    {"custom_id": "b", "prompt": "", "label": "y", "score": 0.5},
    {"custom_id": "c", "prompt": "three", "n": 2, "max_tokens": 3, "label": None, "score": 7},
]
TABLE = {
    "id": pa.array([7, 8, 9], pa.int32()),
    "text": pa.array(["one", "two", "three"]).dictionary_encode(),
    "day": pa.array([datetime.date(2024, 1, 2), None, datetime.date(1969, 7, 20)]),
    "at": pa.array([1_704_164_640_000_000_001, None, -1], pa.timestamp("ns")),
    "there": pa.array([1_704_164_640_000_001, 2, None], pa.timestamp("us", "Europe/Berlin")),
    "clock": pa.array([1, 86_399_999_999_999, None], pa.time64("ns")),
    "noon": pa.array([datetime.time(12), None, datetime.time(1, 2, 3)], pa.time32("s")),
    "took": pa.array([5, None, -3], pa.duration("ms")),
    "price": pa.array([decimal.Decimal("1.50"), None, decimal.Decimal("-0.01")], pa.decimal128(9, 2)),
    "raw": pa.array([b"\xff\x00", None, b""]),
    "half": pa.array([0.5, None, 2.0], pa.float32()),
    "big": pa.array([2**63, None, 2**64 - 1], pa.uint64()),
    "tags": pa.array([["a", "b"], None, []], pa.large_list(pa.string())),
    "box": pa.array([{"d": datetime.date(2024, 1, 2), "n": 1}, None, {"d": None, "n": None}]),
    "error": pa.array([True, False, None]),
}


def run(directory: Path, source: Path, name: str = "out.jsonl", **options: Any) -> Path:
    make_job(source, directory / name, options=ReadOptions(**options)).run()
    return directory / name


def test_fields_that_nothing_read_come_back_on_answers_and_errors(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", ROWS)
    first, bad, last = read_rows(run(tmp_path, source))
    assert list(first)[:4] == ["custom_id", "label", "meta", "input_text"]
    assert (first["label"], first["meta"], first["input_text"]) == ("x", {"k": [1, None]}, "mine")
    assert bad["error"]["code"] == "empty_prompt" and (bad["label"], bad["score"]) == ("y", 0.5)
    assert (last["label"], last["score"], len(last["choices"])) == (None, 7, 2)
    assert not {"prompt", "max_tokens", "n"} & (first.keys() | last.keys())
    assert verify(source, tmp_path / "out.jsonl").findings == []


def test_what_comes_back_is_chosen(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", [ROWS[0], ROWS[2]])
    none, one = (run(tmp_path, source, f"{n}.jsonl", keep=k) for n, k in (("none", ()), ("one", ("score", "prompt"))))
    assert [set(row) - ANSWER_NAMES for row in read_rows(none)] == [set(), set()]
    assert [set(row) - ANSWER_NAMES for row in read_rows(one)] == [{"prompt"}, {"prompt", "score"}]
    assert verify(source, none, keep=()).findings == [] != verify(source, none).findings
    assert verify(source, one, keep=("score",)).findings == []
    assert not any("ignored" in text for text in make_job(source, tmp_path / "w.jsonl").run().warnings)


def test_an_id_column_and_the_prompt(tmp_path: Path) -> None:
    rows = [{"key": 3, "q": "hi"}, {"key": "x", "q": "hu"}, {"q": "no key"}, {"key": 3, "q": "again"}]
    source = write_rows(tmp_path / "in.jsonl", rows)
    output = run(tmp_path, source, id_column="key", template="Say {q}", include_prompt=True)
    found = read_rows(output)
    assert [row["custom_id"] for row in found] == ["3", "x", None, "3"]
    assert [row["error"] and row["error"]["code"] for row in found] == [
        None,
        None,
        "missing_required_parameter",
        "duplicate_custom_id",
    ]
    assert (found[0]["prompt"], found[0]["key"], found[0]["q"]) == ("Say hi", 3, "hi")
    assert verify(source, output, templated=True, id_column="key").findings == []


def test_names_that_clash_are_told_apart_alike_by_the_verifier() -> None:
    keeping = Keeping(ReadOptions(), table=True)
    for names in (["text"], ["text", "input_text"], ["input_text", "text", "input_input_text"], ["id", "error", "x"]):
        found = [shown for _, shown in keeping.names(names)]
        assert found == renamed(names) and len(set(found)) == len(found) and not ANSWER_NAMES & set(found)


def test_all_names_of_answers_are_known(tmp_path: Path) -> None:
    asked = [{"logprobs": 1, "prompt_logprobs": 1}, {"n": 2}, {"choices": ["a", "b"]}, {"continuations": ["a"]}]
    source = write_rows(tmp_path / "in.jsonl", [{"prompt": "hi", "max_tokens": 2, **more} for more in asked])
    names = {name for row in read_rows(run(tmp_path, source)) for name in row}
    others = {"reasoning_content", "tool_calls", "embedding", "probs"}  # of chats, and of rows that want vectors
    assert names == ANSWER_NAMES - others and Renderer.__doc__


def table_of(directory: Path, suffix: str) -> Path:
    path = directory / f"in{suffix}"
    if suffix == ".csv":
        path.write_text('id,text,label\n7,one,"a,b"\n8,"two\nlines",\n9,three,ü\n')
    else:
        pa.parquet.write_table(pa.table(TABLE), path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("out", ["out.jsonl", "out.jsonl.zst", "out.parquet", "out.arrow", "out.csv", "out.tsv"])
def test_tables_give_tables_that_the_verifier_finds_whole(suffix: str, out: str, tmp_path: Path) -> None:
    source = table_of(tmp_path, suffix)
    output = run(tmp_path, source, out, template="Is {text} odd?")
    verdict = verify(source, output, templated=True)
    assert (verdict.findings, verdict.answers, verdict.order) == ([], 3, "input")


def test_columns_of_a_table_keep_their_types(tmp_path: Path) -> None:
    source = table_of(tmp_path, ".parquet")
    for name in ("out.parquet", "out.arrow"):
        output = run(tmp_path, source, name, template="Is {text} odd?")
        found = pa.parquet.read_table(output) if name == "out.parquet" else pa.ipc.open_file(output).read_all()
        before = pa.parquet.read_table(source)
        for column in before.schema.names:
            shown = f"input_{column}" if column in ("text", "error") else column
            assert found.schema.field(shown).type == before.schema.field(column).type, column
            assert found.column(shown).to_pylist() == before.column(column).to_pylist(), column
        assert found.schema.names[:3] == ["custom_id", "id", "input_text"] and "text" in found.schema.names


def test_types_that_json_cannot_bring_back_become_text() -> None:
    kind = pa.map_(pa.string(), pa.int64())
    assert kind_back(kind) == pa.string() and kind_back(pa.list_(pa.binary())) == pa.string()
    cells = given_back(pa.array([[("k", 1)], None], kind))
    assert restored(cells, pa.string()).to_pylist() == ['{"k":1}', None]


def test_types_of_json_lines_follow_from_all_rows(tmp_path: Path) -> None:
    """What has no common type is text in JSON, also where that shows only after many rows."""
    rows = [{"prompt": "x", "max_tokens": 1, "a": i, "b": i, "c": None, "d": {}, "e": [i]} for i in range(1_100)]
    rows[1_099] |= {"a": "text", "b": 0.5, "late": "z"}
    source = write_rows(tmp_path / "in.jsonl", rows)
    output = run(tmp_path, source, "out.parquet")
    found = pa.parquet.read_table(output)
    kinds = {name: str(found.schema.field(name).type) for name in ("a", "b", "c", "d", "e", "late")}
    assert kinds == {
        "a": "string",
        "b": "double",
        "c": "string",
        "d": "string",
        "e": "list<element: int64>",
        "late": "string",
    }
    assert (found.column("a")[5].as_py(), found.column("d")[0].as_py()) == ("5", "{}")
    assert verify(source, output).findings == []


def test_answers_with_lists_are_json_in_the_cells_of_csv(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", ROWS)
    output = run(tmp_path, source, "out.csv")
    with output.open(newline="") as stream:
        one, bad, two = csv.DictReader(stream)
    assert one["text"] and one["choices"] == "" and json.loads(one["meta"]) == {"k": [1, None]}
    assert [choice["index"] for choice in json.loads(two["choices"])] == [0, 1] and two["text"] == ""
    assert json.loads(bad["error"])["code"] == "empty_prompt"
    assert "prompt_logprobs" not in one
    assert verify(source, output).findings == []


@pytest.mark.parametrize("name", ["out.parquet", "out.csv", "out.jsonl", "out.arrow"])
@pytest.mark.parametrize("library", ["duckdb", "polars", "pandas"])
def test_other_libraries_read_it_at_once(library: str, name: str, tmp_path: Path) -> None:
    reader = pytest.importorskip(library)
    output = str(run(tmp_path, write_rows(tmp_path / "in.jsonl", [ROWS[0], ROWS[2]]), name))
    kind = Path(name).suffix[1:]
    if library == "duckdb":
        if kind == "arrow":
            found = reader.from_arrow(pa.ipc.open_file(output).read_all()).fetchall()
        else:
            found = reader.sql(f"SELECT label FROM '{output}'").fetchall()
    elif library == "polars":
        read = {"parquet": "read_parquet", "csv": "read_csv", "jsonl": "read_ndjson", "arrow": "read_ipc"}[kind]
        found = getattr(reader, read)(output)
    else:
        read = {"parquet": "read_parquet", "csv": "read_csv", "jsonl": "read_json", "arrow": "read_feather"}[kind]
        found = getattr(reader, read)(output, **({"lines": True} if kind == "jsonl" else {}))
    assert len(found) == 2 and importlib.import_module(library)


def test_names_without_a_format_are_refused_before_anything_runs(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", ROWS)
    for name, text in (("out.txt", r"\.txt.*\.jsonl, \.csv"), ("out.parquet.gz", "leave .gz out"), ("o.json", "json")):
        with pytest.raises(UsageError, match=text):
            make_job(source, tmp_path / name).run()
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]
    assert (format_of(Path("a")).kind, format_of(Path("a.csv.zst")).packing) == ("lines", "zstd")


def test_columns_asked_for_by_name_must_be_there(tmp_path: Path) -> None:
    source = table_of(tmp_path, ".csv")
    for options, text in (({"keep": ("labl",)}, "--keep: no column 'labl'.*'label'"), ({"id_column": "ID"}, "--id")):
        with pytest.raises(UsageError, match=text):
            run(tmp_path, source, template="{text}", **options)


def test_a_column_that_was_changed_or_lost_is_found(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", ROWS)
    rows = read_rows(run(tmp_path, source))
    for change in ({"label": "z"}, {"meta": {"k": [1]}}, {"more": 1}):
        write_rows(tmp_path / "bad.jsonl", [rows[0] | change, *rows[1:]])
        assert "columns of the input are missing or differ" in verify(source, tmp_path / "bad.jsonl").findings[0]
    del rows[0]["input_text"]
    write_rows(tmp_path / "bad.jsonl", rows)
    assert verify(source, tmp_path / "bad.jsonl").faults == 1


def test_draws_are_keyed_by_the_id_where_there_is_one(tmp_path: Path) -> None:
    from tests.jobs.fakes import CONTEXT, WIDTH, FakeTokenizer

    rows = [{"custom_id": "a", "prompt": "x"}, {"prompt": "y"}, {"custom_id": "b", "prompt": "z"}]
    keys = []
    for name, part in (("all", rows), ("moved", [rows[2], rows[0]])):
        source = Source(write_rows(tmp_path / f"{name}.jsonl", part))
        keys.append(prepare(source, FakeTokenizer(), WIDTH, CONTEXT).workload.noise_keys.tolist())
    assert keys == [[key_of("a"), 1, key_of("b")], [key_of("b"), key_of("a")]]


def test_ids_of_a_column_repeat_in_large_files_too(tmp_path: Path) -> None:
    from tests.jobs.fakes import CONTEXT, WIDTH, FakeTokenizer
    from umbel.jobs.read.prepare import WindowBuilder
    from umbel.jobs.read.windows import open_feed

    rows = [{"key": i % 40, "custom_id": "same", "prompt": "x"} for i in range(41)]
    source = Source(write_rows(tmp_path / "in.jsonl", rows), ReadOptions(id_column="key"))
    feed = open_feed(source, b"", lambda: WindowBuilder(FakeTokenizer(), WIDTH, CONTEXT), small=0)
    assert [row.row for window in feed.windows() for row in window.faults] == [40]


def test_openai_lines_that_were_not_reached_have_expired(tmp_path: Path) -> None:
    from umbel.ir.budget import Budget

    body = {"model": "fake", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
    line = {"method": "POST", "url": "/v1/chat/completions", "body": body, "label": "x"}
    source = write_rows(tmp_path / "in.jsonl", [{"custom_id": str(i), **line} for i in range(3)])
    assert make_job(source, tmp_path / "out.jsonl", budget=Budget(None, 2)).run().exit_code == 5
    found = read_rows(tmp_path / "out.jsonl")
    expired = [row["error"]["code"] for row in found if row["response"] is None]
    (answer,) = [row["response"]["body"] for row in found if row["response"]]
    assert expired == ["batch_expired"] * 2 and "label" not in found[0]
    assert answer["created"] == 1_700_000_000 and answer["system_fingerprint"].startswith("fp_")
    verdict = verify(source, tmp_path / "out.jsonl")
    assert (verdict.findings, verdict.codes) == ([], {"batch_expired": 2})
    with pytest.raises(UsageError, match="--id: the input has OpenAI batch lines"):
        run(tmp_path, source, "other.jsonl", id_column="label")


class TestErrorsFile:
    def run(self, directory: Path, **more: Any) -> tuple[Path, Path, Path]:
        from dataclasses import replace

        source = write_rows(directory / "in.jsonl", more.pop("rows", ROWS))
        job = make_job(source, directory / "out.jsonl", **more)
        job.spec = replace(job.spec, errors=directory / "bad.jsonl")
        job.run()
        return source, directory / "out.jsonl", directory / "bad.jsonl"

    def test_failed_rows_are_apart(self, tmp_path: Path) -> None:
        source, output, errors = self.run(tmp_path)
        assert [row["custom_id"] for row in read_rows(output)] == ["a", "c"]
        assert [(row["custom_id"], row["label"]) for row in read_rows(errors)] == [("b", "y")]
        verdict = verify(source, output, errors=errors)
        assert (verdict.findings, verdict.answers, verdict.errors, verdict.order) == ([], 2, 1, "input")
        assert verify(source, output).faults and verify(source, errors, errors=output).faults

    def test_again_with_and_without(self, tmp_path: Path) -> None:
        source, output, errors = self.run(tmp_path)
        before = (output.read_bytes(), errors.read_bytes())
        errors.unlink()
        self.run(tmp_path)
        assert (output.read_bytes(), errors.read_bytes()) == before
        make_job(source, output).run()
        assert len(read_rows(output)) == 3

    def test_strangers_files_stay(self, tmp_path: Path) -> None:
        (tmp_path / "bad.jsonl").write_text("mine\n")
        with pytest.raises(UsageError, match=r"--errors .*bad\.jsonl: exists"):
            self.run(tmp_path)
        assert (tmp_path / "bad.jsonl").read_text() == "mine\n"
