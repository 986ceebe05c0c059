"""Every bad input becomes the error it should, and nothing else in the job notices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.jobs.bad_cases import CASES, Case, good_row
from tests.jobs.bad_doc import DOC, document
from tests.jobs.fakes import make_job, read_rows, write_rows
from umbel.errors import InputError, UsageError
from umbel.ir.params import SamplingParams
from umbel.jobs.read.formats.template import Template
from umbel.jobs.read.records import ReadOptions
from umbel.jobs.summary import Summary
from umbel.jobs.verify import verify

ROWS, PLACE = 40, 20


def run(directory: Path, dialect: str, lines: list[Any]) -> tuple[Summary, Path]:
    source, output = write_rows(directory / "in.jsonl", lines), directory / "out.jsonl"
    return make_job(source, output).run(), output


@pytest.fixture(scope="module")
def plain_outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[bytes]]:
    """Output lines of the good rows alone, by dialect."""
    found = {}
    for dialect in ("plain", "chat", "completion"):
        directory = tmp_path_factory.mktemp(dialect)
        summary, output = run(directory, dialect, [good_row(dialect, i) for i in range(ROWS)])
        assert summary.exit_code == 0
        found[dialect] = output.read_bytes().splitlines()
    return found


def code_of(item: dict[str, Any]) -> str | None:
    """The error code of an output row, None for an answer."""
    error = item["error"]
    if "response" in item:
        assert error is None
        error = item["response"]["body"].get("error")
        bad = 404 if error and error["code"] == "model_not_found" else 400
        assert item["response"]["status_code"] == (bad if error else 200)
    return error["code"] if error is not None else None


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.number}-{c.dialect}-{c.what}"[:60].replace("\x00", ""))
def test_a_bad_row_is_named_and_its_neighbours_are_untouched(
    case: Case, plain_outputs: dict[str, list[bytes]], tmp_path: Path
) -> None:
    lines: list[Any] = [good_row(case.dialect, i) for i in range(ROWS)]
    lines[PLACE] = case.line
    summary, output = run(tmp_path, case.dialect, lines)
    written = output.read_bytes().splitlines()
    assert len(written) == ROWS
    item = read_rows(output)[PLACE]
    assert code_of(item) == case.code
    assert item["custom_id"] == case.name
    assert summary.exit_code == (3 if case.code else 0)
    del written[PLACE]
    expected = [line for i, line in enumerate(plain_outputs[case.dialect]) if i != PLACE]
    assert written == expected
    assert verify(tmp_path / "in.jsonl", output).faults == 0


@pytest.mark.parametrize("number, param", [(14, None), (22, "custom_id"), (36, "n"), (41, "stop")])
def test_messages_name_the_limit(number: int, param: str | None, tmp_path: Path) -> None:
    limits = {14: "16,777,216", 22: "512", 36: "16384", 41: "4"}
    case = next(c for c in CASES if c.number == number and c.dialect == "chat")
    _, output = run(tmp_path, "chat", [good_row("chat", 0), case.line])
    error = read_rows(output)[1]["response"]["body"]["error"]
    assert limits[number] in error["message"]
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"


def test_context_errors_show_both_numbers(tmp_path: Path) -> None:
    _, output = run(tmp_path, "plain", [{"prompt": "x" * 100}, {"prompt": "y" * 63}])
    failed, answered = read_rows(output)
    assert "100" in failed["error"]["message"] and "64" in failed["error"]["message"]
    assert (len(answered["token_ids"]), answered["finish_reason"]) == (1, "length")


def test_duplicates_name_both_lines(tmp_path: Path) -> None:
    rows = [good_row("plain", i) for i in range(90)]
    rows[89]["custom_id"] = "row-2"
    _, output = run(tmp_path, "plain", rows)
    message = read_rows(output)[89]["error"]["message"]
    assert "line 90" in message and "line 3" in message


def test_messages_are_short_whatever_the_values(tmp_path: Path) -> None:
    """Names that strangers chose, of ids, columns and fields, are cut where they are shown."""
    name = "a" * 300_000
    twice = [{"custom_id": name, "prompt": "x"}] * 2
    outputs = [run(tmp_path, "plain", twice)[1]]
    (tmp_path / "in.csv").write_text(
        f"custom_id,prompt,{name}\n1,x,\udce9\n", encoding="utf-8", errors="surrogateescape"
    )
    make_job(tmp_path / "in.csv", tmp_path / "csv.jsonl").run()
    for output in (*outputs, tmp_path / "csv.jsonl"):
        errors = [row["error"]["message"] for row in read_rows(output) if row["error"]]
        assert errors and all(len(message) < 500 for message in errors)
    with pytest.raises(UsageError, match=r"no column .*characters\).*\.\.\.$") as caught:
        Template.parse("{" + name + "}").check_columns([f"{i}" + name for i in range(30)])
    assert len(str(caught.value)) < 2_000
    source = write_rows(tmp_path / "fields.jsonl", [{"prompt": "a", name: 1}])
    assert all(len(text) < 500 for text in make_job(source, tmp_path / "answers.jsonl").run().warnings)


def test_columns_of_any_json_value_are_filled_in() -> None:
    values = [3, -1.5, True, [1, 2], {"b": None}, 2**64, [2**70, "ü"]]
    filled = [Template.parse("{a}").fill({"a": value}) for value in values]
    assert filled == [
        "3",
        "-1.5",
        "true",
        "[1,2]",
        '{"b":null}',
        "18446744073709551616",
        '[1180591620717411303424,"ü"]',
    ]


def test_strict_refuses_unknown_fields_with_the_nearest_name(tmp_path: Path) -> None:
    from umbel.errors import InputError

    source = write_rows(tmp_path / "in.jsonl", [{"prompt": "a"}, {"prompt": "b", "max_tokns": 3}])
    options = ReadOptions(SamplingParams(), strict=True)
    with pytest.raises(InputError, match=r"unknown_parameter: .*'max_tokns'.*'max_tokens'") as caught:
        make_job(source, tmp_path / "out.jsonl", options=options).run()
    assert caught.value.exit_code == 4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.jsonl"]


def test_unknown_fields_are_counted(tmp_path: Path) -> None:
    summary, _ = run(tmp_path, "plain", [{"prompt": "a", "max_tokns": 3}, {"prompt": "b", "max_tokns": 3}])
    assert any("'max_tokns' was ignored in 2 rows; did you mean 'max_tokens'" in text for text in summary.warnings)


@pytest.mark.slow
def test_the_documented_table_is_what_happens(tmp_path: Path) -> None:
    assert DOC.read_text() == document(tmp_path), "run: python -m tests.jobs.bad_doc"


@pytest.mark.parametrize(("rows", "refused"), [(9, False), (10, True), (200, True)])
def test_a_file_of_which_every_row_fails_alike_is_refused_before_anything_runs(
    rows: int, refused: bool, tmp_path: Path
) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"text": f"no prompt {i}"} for i in range(rows)])
    job = make_job(source, tmp_path / "out.jsonl")
    if not refused:
        assert (job.run().failed, job.progress.rows) == (rows, rows)
        return
    with pytest.raises(InputError, match=f"all of the first {rows} rows fail with missing_required_parameter") as found:
        job.run()
    assert found.value.exit_code == 4
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_one_row_that_can_run_or_fails_otherwise_keeps_a_file_from_being_refused(tmp_path: Path) -> None:
    bad = [{"text": f"no prompt {i}"} for i in range(20)]
    for name, other in (("good", {"prompt": "x"}), ("other", {"prompt": 7})):
        source = write_rows(tmp_path / f"{name}.jsonl", [*bad, other])
        assert make_job(source, tmp_path / f"{name}.out.jsonl").run().rows == 21
