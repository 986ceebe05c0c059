"""Several files as one input: the rows of all of them, numbered through, each with the name of its file."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.jobs.fakes import WIDTH, FakeEngine, make_job, read_rows, write_rows
from tests.jobs.test_failpoints import Nth, die, in_child
from tests.jobs.test_windows import SIZES, in_windows, some_rows
from umbel.cli.main import main
from umbel.errors import EmptyInput, InputChanged, StoreMismatch, UsageError
from umbel.ir.budget import Budget
from umbel.jobs.read.inputs import expanded
from umbel.jobs.read.records import ReadOptions
from umbel.jobs.verify import verify


def split(rows: list[Any], parts: int, place: Path) -> list[Path]:
    """The rows in files of different sizes, one of them empty."""
    cuts = sorted(random.Random(parts).sample(range(len(rows)), parts - 1))
    ends = [0, *cuts, len(rows)]
    files = [write_rows(place / f"{i}.jsonl", rows[a:b]) for i, (a, b) in enumerate(pairwise(ends))]
    (place / "empty.jsonl").write_bytes(b"\n")
    return [*files[:2], place / "empty.jsonl", *files[2:]]


def named(files: list[Path]) -> dict[str, Path]:
    return {path.name: path for path in files}


def without(rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != name} for row in rows]


def test_the_answers_are_those_of_one_file(tmp_path: Path) -> None:
    rows = some_rows(150)
    files = split(rows, 4, tmp_path)
    make_job(write_rows(tmp_path / "in.jsonl", rows), tmp_path / "one").run()
    summary = make_job(files, tmp_path / "out").run()
    assert (summary.rows, summary.failed) == (150, 5)
    one, several = read_rows(tmp_path / "one"), read_rows(tmp_path / "out")
    for row in (*one, *several):  # whose messages name lines, which are others
        row["error"] = row["error"] and row["error"]["code"]
    assert without(several, "file") == one
    assert [row["file"] for row in several] == [
        path.name for path in files for _ in path.read_bytes().strip().splitlines()
    ]
    assert verify(named(files), tmp_path / "out").findings == []
    assert verify(named(files[1:] + files[:1]), tmp_path / "out").faults
    assert verify({f"other {name}": path for name, path in named(files).items()}, tmp_path / "out").faults


def test_windows_reach_over_the_ends_of_files(tmp_path: Path) -> None:
    rng = random.Random(5)
    heads = [f"{i:02} " + "".join(rng.choices("abcdefgh", k=50)) for i in range(20)]
    files = split([{"prompt": heads[i % 20] + "y", "max_tokens": 1} for i in range(200)], 5, tmp_path)
    make_job(files, tmp_path / "whole").run()
    engine = FakeEngine()
    in_windows(make_job(files, tmp_path / "out", engine)).run()
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()
    assert len(engine.planned) > 5 and max(engine.planned) <= SIZES.rows
    places = {head: {engine.seen.index(i) for i in range(200) if i % 20 == k} for k, head in enumerate(heads)}
    assert all(max(found) - min(found) < 2 * SIZES.rows for found in places.values()), "rows that share run together"


@pytest.mark.parametrize("column, parts", [(None, 2), ("custom_id", 6), ("key", 3)])
def test_windows_give_the_same_bytes(column: str | None, parts: int, tmp_path: Path) -> None:
    rows = [{**row, "key": row.get("custom_id", 7)} if isinstance(row, dict) else row for row in some_rows(60, parts)]
    files = split(rows, parts, tmp_path)
    options = ReadOptions(width=WIDTH, id_column=column)
    for name in ("whole", "out"):
        job = make_job(files, tmp_path / name, options=options, fresh=True)
        (in_windows(job) if name == "out" else job).run()
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()
    assert verify(named(files), tmp_path / "out", id_column=column).findings == []


def test_ids_are_unique_among_all_files(tmp_path: Path) -> None:
    one = write_rows(tmp_path / "a.jsonl", [{"prompt": "x"}, {"prompt": "y"}])
    two = write_rows(tmp_path / "b.jsonl", [{"prompt": "z"}, {"custom_id": "k", "prompt": "z"}])
    three = write_rows(tmp_path / "c.jsonl", [b"", {"custom_id": "k", "prompt": "z"}, {"custom_id": "1", "prompt": ""}])
    for feed in (lambda job: job, in_windows):
        feed(make_job([one, two, three], tmp_path / "out", fresh=True)).run()
        rows = read_rows(tmp_path / "out")
        assert [row["custom_id"] for row in rows] == ["0", "1", "2", "k", "k", "1"]
        said = [row["error"]["message"] for row in rows[4:]]
        assert said == [
            "custom_id 'k' on line 2 of c.jsonl was already used on line 2 of b.jsonl",
            "custom_id '1' on line 3 of c.jsonl was already used on line 2 of a.jsonl",
        ]


def mixed(place: Path) -> list[Path]:
    """A file of each of three formats with columns of their own, one called `file`."""
    lines = write_rows(place / "a.jsonl", [{"prompt": "one", "file": "mine", "label": "x"}, b"{broken"])
    (place / "b.csv").write_text("prompt,score\ntwo,5\n")
    pq.write_table(pa.table({"prompt": ["three"], "n_words": pa.array([3], pa.int8())}), place / "c.parquet")
    return [lines, place / "b.csv", place / "c.parquet"]


def test_formats_may_differ(tmp_path: Path) -> None:
    files = mixed(tmp_path)
    make_job(files, tmp_path / "out").run()
    rows = read_rows(tmp_path / "out")
    assert [row["file"] for row in rows] == ["a.jsonl", "a.jsonl", "b.csv", "c.parquet"]
    assert [row["custom_id"] for row in rows] == ["0", None, "2", "3"]
    assert (rows[0]["input_file"], rows[0]["label"], rows[2]["score"], rows[3]["n_words"]) == ("mine", "x", "5", 3)
    assert verify(named(files), tmp_path / "out").findings == []
    table = tmp_path / "out.parquet"
    make_job(files, table).run()
    found = pq.read_table(table).to_pydict()
    assert (found["score"], found["n_words"]) == ([None, None, "5", None], [None, None, None, 3])
    assert verify(named(files), table).findings == []


@pytest.mark.parametrize("keep, expected", [((), []), (("file",), ["file"]), (("label",), ["label"])])
def test_the_name_of_the_file_is_kept_as_columns_are(
    keep: tuple[str, ...], expected: list[str], tmp_path: Path
) -> None:
    files = [write_rows(tmp_path / f"{n}.jsonl", [{"prompt": "x", "label": "x"}]) for n in "ab"]
    make_job(files, tmp_path / "out", options=ReadOptions(width=WIDTH, keep=keep)).run()
    assert list(read_rows(tmp_path / "out")[0])[1 : 1 + len(expected)] == expected
    assert ("file" in read_rows(tmp_path / "out")[0]) == ("file" in keep)
    assert verify(named(files), tmp_path / "out", keep=keep).findings == []


def tables(place: Path, *columns: pa.Array) -> list[Path]:
    files = [place / f"{i}.parquet" for i in range(len(columns))]
    for path, column in zip(files, columns, strict=True):
        pq.write_table(pa.table({"prompt": ["x"] * len(column), "value": column}), path)
    return files


@pytest.mark.parametrize(
    "one, other, kind",
    [
        (pa.array([1], pa.int8()), pa.array([2], pa.int64()), pa.int64()),
        (pa.array([1], pa.int32()), pa.array([0.5]), pa.float64()),
        (pa.array(["a"]).dictionary_encode(), pa.array(["b"]), pa.string()),
        (pa.array([None]), pa.array([b"\0"]), pa.binary()),
        (pa.array([10**12], pa.timestamp("ms")), pa.array([1], pa.timestamp("us")), pa.timestamp("us")),
    ],
)
def test_types_that_have_one_in_common(one: pa.Array, other: pa.Array, kind: pa.DataType, tmp_path: Path) -> None:
    make_job(tables(tmp_path, one, other), tmp_path / "out.parquet").run()
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.schema.field("value").type == kind
    assert found.column("value").to_pylist() == [*one.to_pylist(), *other.to_pylist()]


@pytest.mark.parametrize("other", [pa.array(["x"]), pa.array([b"x"]), pa.array([[1]])])
def test_types_that_clash_are_refused_before_anything_runs(other: pa.Array, tmp_path: Path) -> None:
    files, engine = tables(tmp_path, pa.array([1]), other), FakeEngine()
    with pytest.raises(UsageError, match=r"column 'value' is int64 in 0.parquet and .* in 1.parquet: cast one"):
        make_job(files, tmp_path / "out.parquet", engine).run()
    assert not engine.seen and not (tmp_path / "out.parquet.umbel").exists()
    assert make_job(files, tmp_path / "out.jsonl", engine).run().exit_code == 0  # JSON has no columns


def openai(name: str, url: str = "/v1/completions") -> dict[str, Any]:
    return {"custom_id": name, "method": "POST", "url": url, "body": {"prompt": "x", "max_tokens": 1}}


def test_openai_lines_stay_as_they_are(tmp_path: Path) -> None:
    files = [write_rows(tmp_path / f"{n}.jsonl", [openai(n)]) for n in "ab"]
    make_job(files, tmp_path / "out").run()
    assert [list(row) for row in read_rows(tmp_path / "out")] == [["id", "custom_id", "response", "error"]] * 2
    assert verify(named(files), tmp_path / "out").findings == []
    plain = write_rows(tmp_path / "p.jsonl", [{"prompt": "x"}])
    with pytest.raises(UsageError, match=r"a.jsonl has OpenAI batch lines and p.jsonl plain rows.*as two jobs"):
        make_job([files[0], plain], tmp_path / "both").run()


def test_the_job_is_known_by_its_files(tmp_path: Path) -> None:
    files = split(some_rows(40), 3, tmp_path)
    make_job(files, tmp_path / "out").run()
    assert make_job(files, tmp_path / "out").run().status == "already_complete"
    with pytest.raises(StoreMismatch, match=r"input\.1: 0\.jsonl, \d+ bytes.* -> 1\.jsonl"):
        make_job([files[1], files[0], *files[2:]], tmp_path / "out").run()
    job = make_job(files, tmp_path / "again")
    files[-1].write_bytes(b"{}\n")
    with pytest.raises(InputChanged, match=r"3?\.jsonl: changed"):
        job.run()


def test_a_killed_job_goes_on(tmp_path: Path) -> None:
    files = split(some_rows(80), 3, tmp_path)
    make_job(files, tmp_path / "whole").run()
    in_child(lambda: in_windows(make_job(files, tmp_path / "out", at=Nth("store.commit.after", 2, die))).run())
    assert in_windows(make_job(files, tmp_path / "out")).run().resumed > 0
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()


def test_rows_beyond_a_budget_name_their_file(tmp_path: Path) -> None:
    files = split([{"prompt": f"p {i}", "max_tokens": 2} for i in range(30)], 3, tmp_path)
    assert make_job(files, tmp_path / "out", budget=Budget(output_tokens=10)).run().status == "budget"
    assert {row["file"] for row in read_rows(tmp_path / "out")} == {"0.jsonl", "1.jsonl", "2.jsonl"}
    assert verify(named(files), tmp_path / "out").faults == 0


def test_files_without_rows(tmp_path: Path) -> None:
    files = [write_rows(tmp_path / f"{n}.jsonl", []) for n in "ab"]
    with pytest.raises(EmptyInput, match="none of the 2 input files has rows"):
        make_job(files, tmp_path / "out").run()


def test_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b.jsonl", "a.jsonl", "[x].jsonl", "s/deep/c.jsonl", "out.jsonl", "out.jsonl.umbel"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("{}\n")
    Path("dir.jsonl").mkdir()
    assert expanded(["*.jsonl*"], [Path("out.jsonl")]) == ["[x].jsonl", "a.jsonl", "b.jsonl"]
    assert expanded(["b.jsonl", "[x].jsonl", "a?jsonl"]) == ["b.jsonl", "[x].jsonl", "a.jsonl"]
    assert expanded(["**/c.jsonl", "missing.jsonl"]) == ["s/deep/c.jsonl", "missing.jsonl"]
    with pytest.raises(UsageError, match=r"input 'n\*': no file matches"):
        expanded(["a.jsonl", "n*"])
    for twice in (["a.jsonl", "*"], ["a.jsonl", "./a.jsonl"]):
        with pytest.raises(UsageError, match=r"a\.jsonl': is given twice, first as 'a\.jsonl'"):
            expanded(twice)


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.jsonl", "b.jsonl"):
        write_rows(Path(name), [{"prompt": "add 1 1", "max_tokens": 2}] * 3)
    assert main(["plan", "a.jsonl", "b.jsonl", "-m", "demo", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 6
    assert main(["plan", "*.jsonl", "-m", "demo", "--json", "-o", "b.jsonl"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 3
    assert main(["plan", "-i", "a.jsonl", "-i", "b.jsonl", "-m", "demo", "--html", "b.jsonl"]) == 2
    assert "--html b.jsonl: is the input" in capsys.readouterr().err
    files = {name: Path(name) for name in ("a.jsonl", "b.jsonl")}
    make_job(list(files.values()), Path("out.jsonl")).run()
    assert main(["verify", "*.jsonl", "out.jsonl"]) == main(["verify", *files, "out.jsonl"]) == 0
    assert capsys.readouterr().out.count("sha256") == 6
    assert main(["verify", "out.jsonl"]) == 2
    assert "give an input and its output" in capsys.readouterr().err
