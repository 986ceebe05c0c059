"""Rows whose prompts are too long: cut, left out or errors, as they ask for, told on the row and in the notes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.jobs.fakes import CONTEXT, WIDTH, make_job, read_rows, write_rows
from umbel.ir.params import SamplingParams
from umbel.jobs.read.records import ReadOptions
from umbel.jobs.verify import verify

LONG = "".join(chr(65 + i % 26) for i in range(CONTEXT + 20))


def answers(tmp_path: Path, rows: list[dict[str, Any]], name: str = "out.jsonl", **defaults: Any) -> Any:
    options = ReadOptions(SamplingParams(max_tokens=4, **defaults), width=WIDTH)
    source, output = write_rows(tmp_path / "in.jsonl", rows), tmp_path / name
    summary = make_job(source, output, options=options).run()
    assert verify(source, output).faults == 0
    return summary, output


def test_each_row_has_its_way(tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = [
        *({"truncation": name} for name in ("error", "left", "right", "middle", "skip")),
        {"truncate_prompt_tokens": 7},
        {"truncation": "skip", "n": 2},
        {},
    ]
    summary, output = answers(tmp_path, [{"prompt": LONG, **one} for one in asked] + [{"prompt": "short"}])
    failed, left, right, middle, skipped, seven, twice, plain, short = read_rows(output)
    assert failed["error"]["code"] == plain["error"]["code"] == "context_length_exceeded"
    usage = {"prompt_tokens": CONTEXT - 4, "completion_tokens": 4, "cut_prompt_tokens": 24}
    assert left["usage"] == right["usage"] == middle["usage"] == usage
    assert len({str(one["token_ids"]) for one in (left, right, middle)}) == 3, "of other prompts"
    assert seven["usage"]["prompt_tokens"] == 7 and seven["usage"]["cut_prompt_tokens"] == CONTEXT + 13
    assert (skipped["text"], skipped["token_ids"], skipped["finish_reason"], skipped["error"]) == (
        "",
        [],
        "length",
        None,
    )
    assert skipped["usage"] == {"prompt_tokens": CONTEXT + 20, "completion_tokens": 0}
    assert [choice["text"] for choice in twice["choices"]] == ["", ""]
    assert "cut_prompt_tokens" not in short["usage"]
    assert (summary.rows, summary.failed, summary.exit_code) == (9, 2, 3)
    assert sorted(note.partition(",")[0] for note in summary.notes) == [
        "1 row: the prompt was cut (middle); usage.cut_prompt_tokens says how many tokens",
        "1 row: the prompt was cut (right); usage.cut_prompt_tokens says how many tokens",
        "2 rows: left out",
        "2 rows: the prompt was cut (left); usage.cut_prompt_tokens says how many tokens",
    ]


def test_a_job_says_it_for_all_rows_and_leaves_some_out_without_a_failure(tmp_path: Path) -> None:
    summary, _ = answers(tmp_path, [{"prompt": LONG}, {"prompt": "short"}], truncation="skip")
    assert (summary.ok, summary.failed, summary.exit_code, summary.ended_by_length) == (2, 0, 0, 1)


def test_rows_that_are_all_left_out_need_no_model(tmp_path: Path) -> None:
    summary, output = answers(tmp_path, [{"prompt": LONG}] * 3, truncation="skip")
    assert (summary.status, summary.exit_code) == ("complete", 0)
    assert [row["finish_reason"] for row in read_rows(output)] == ["length"] * 3


def test_openai_lines(tmp_path: Path) -> None:
    envelope = {"method": "POST", "url": "/v1/chat/completions"}
    bodies = [{"messages": [{"role": "user", "content": LONG}], "truncation": name} for name in ("middle", "skip")]
    lines = [{"custom_id": str(i), **envelope, "body": body} for i, body in enumerate(bodies)]
    cut, skipped = (row["response"]["body"] for row in read_rows(answers(tmp_path, lines)[1]))
    assert cut["usage"]["cut_prompt_tokens"] == 25, "the role's mark is a token"
    assert cut["usage"]["total_tokens"] == CONTEXT
    assert skipped["choices"][0]["finish_reason"] == "length" and skipped["choices"][0]["message"]["content"] == ""


def test_tables_have_a_column_for_it(tmp_path: Path) -> None:
    _, output = answers(tmp_path, [{"prompt": LONG}, {"prompt": "short"}], "out.parquet", truncation="left")
    assert [usage["cut_prompt_tokens"] for usage in pq.read_table(output)["usage"].to_pylist()] == [24, None]


def test_texts_beyond_all_contexts_are_cut_too(tmp_path: Path) -> None:
    huge = "x" * (2**20 + 1)
    _, output = answers(tmp_path, [{"prompt": huge, "truncation": "right"}, {"prompt": huge}])
    cut, refused = read_rows(output)
    assert cut["usage"]["cut_prompt_tokens"] == 2**20 + 1 - (CONTEXT - 4)
    assert refused["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize("field", ["choices", "continuations"])
@pytest.mark.parametrize("asked", [{"truncation": "left"}, {"structured_outputs": {"regex": "b|c"}}])
def test_what_is_not_done_for_continuations_is_refused(asked: dict[str, Any], field: str, tmp_path: Path) -> None:
    _, output = answers(tmp_path, [{"prompt": "a", field: ["b", "c"], **asked}, {"prompt": "a"}])
    error = read_rows(output)[0]["error"]
    assert (error["code"], error["param"]) == ("unsupported_parameter", next(iter(asked)))
