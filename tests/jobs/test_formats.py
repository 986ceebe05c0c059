"""Files as people make them: marks, line ends, packing, tables; what is read and what is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.jobs.fakes import make_job, read_rows, write_rows
from umbel.errors import EmptyInput, InputError, UsageError
from umbel.jobs.formats.lines import read_lines
from umbel.jobs.rows import InputRow, ReadOptions, Style
from umbel.jobs.source import Source

PLAIN = [{"custom_id": f"row-{i}", "prompt": f"text {i}"} for i in range(5)]


def rows_of(path: Path, **options: Any) -> list[InputRow]:
    return list(Source(path, ReadOptions(**options)).rows())


def prompts_of(path: Path, **options: Any) -> list[Any]:
    return [row.request.prompt if row.request else row.error and row.error.code for row in rows_of(path, **options)]


def output_of(directory: Path, name: str, data: bytes) -> bytes:
    source, output = directory / name, directory / f"{name}.out"
    source.write_bytes(data)
    make_job(source, output).run()
    return output.read_bytes()


@pytest.mark.parametrize("data", [b"", b"\n\n  \r\n\t\n", b"\xef\xbb\xbf"], ids=["0 bytes", "blank lines", "mark only"])
def test_an_empty_file_is_refused_and_leaves_nothing_behind(data: bytes, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(data)
    with pytest.raises(EmptyInput, match="empty_file") as caught:
        make_job(source, tmp_path / "out.jsonl").run()
    assert caught.value.exit_code == 2
    assert [p.name for p in tmp_path.iterdir()] == ["in.jsonl"]


def test_marks_line_ends_and_packing_do_not_change_the_answers(tmp_path: Path) -> None:
    lines = [json.dumps(row).encode() for row in PLAIN]
    expected = output_of(tmp_path, "plain", b"\n".join(lines) + b"\n")
    assert output_of(tmp_path, "bom", b"\xef\xbb\xbf" + b"\n".join(lines) + b"\n") == expected
    assert output_of(tmp_path, "crlf", b"\r\n".join(lines) + b"\r\n") == expected
    assert output_of(tmp_path, "no-newline", b"\n".join(lines)) == expected
    assert output_of(tmp_path, "blanks", b"\n\n".join(lines) + b"\n \n") == expected
    assert output_of(tmp_path, "packed.gz", gzip.compress(b"\n".join(lines))) == expected


def test_line_numbers_stay_physical_over_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"prompt": "a"}\n\n\n[1]\n')
    row = rows_of(path)[1]
    assert (row.row, row.line) == (1, 4)
    assert row.error is not None and row.error.message.startswith("line 4:")


@pytest.mark.parametrize("coding", ["utf-16", "utf-16-le"])
def test_utf16_is_named(coding: str, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes("".join(json.dumps(row) + "\n" for row in PLAIN).encode(coding))
    rows = rows_of(path)
    assert {row.error.code for row in rows if row.error} == {"invalid_json_line"}
    first = rows[0].error
    assert first is not None and ("UTF-16" in first.message if coding == "utf-16" else "NUL" in first.message)


def test_a_cut_last_line_hints_at_truncation(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"prompt": "a"}\n{"prompt": "bc')
    error = rows_of(path)[1].error
    assert error is not None and error.code == "invalid_json_line" and "truncated" in error.message


def test_invalid_utf8_names_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"prompt": "a\xff"}\n')
    error = rows_of(path)[0].error
    assert error is not None and "byte offset 13" in error.message and "0xff" in error.message


def test_long_lines_are_skipped_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"x" * 40 + b"\n" + b"ok\n" + b"y" * 31 + b"\n" + b"z" * 30 + b"\nend")
    assert list(read_lines(path, 30)) == [(1, None), (2, b"ok\n"), (3, None), (4, b"z" * 30 + b"\n"), (5, b"end")]


def test_the_first_object_decides_between_plain_and_openai(tmp_path: Path) -> None:
    body = {"prompt": "x"}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": body}
    path = write_rows(tmp_path / "in.jsonl", [b"broken", b"", line])
    rows = rows_of(path)
    assert [row.style for row in rows] == [Style.COMPLETION, Style.COMPLETION]
    path = write_rows(tmp_path / "in.jsonl", [{"prompt": "p"}, line])
    assert prompts_of(path) == ["p", "missing_required_parameter"]


@pytest.mark.parametrize("cut", [20, -9])
def test_a_damaged_gzip_stops_before_anything_runs(cut: int, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl.gz"
    source.write_bytes(gzip.compress(b"\n".join(json.dumps(row).encode() for row in PLAIN))[:cut])
    with pytest.raises(InputError, match="damaged or cut gzip") as caught:
        make_job(source, tmp_path / "out.jsonl").run()
    assert caught.value.exit_code == 4
    assert [p.name for p in tmp_path.iterdir()] == [source.name]


def test_a_file_that_only_claims_to_be_gzip_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl.gz"
    source.write_bytes(b'{"prompt": "a"}\n')
    with pytest.raises(InputError, match="not a gzip file"):
        rows_of(source)


@pytest.mark.parametrize("name", ["missing.jsonl", "missing.csv", "missing.parquet"])
def test_a_missing_file_is_a_usage_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=name):
        rows_of(tmp_path / name)


class TestCsv:
    def test_prompts_ids_and_quoted_newlines(self, tmp_path: Path) -> None:
        path = tmp_path / "in.csv"
        path.write_bytes(b'\xef\xbb\xbfcustom_id,prompt\r\na,"one\ntwo, three"\r\n\r\nb,four\r\n')
        rows = rows_of(path)
        assert [(row.custom_id, row.request and row.request.prompt) for row in rows] == [
            ("a", "one\ntwo, three"),
            ("b", "four"),
        ]

    def test_faults_are_rows(self, tmp_path: Path) -> None:
        path = tmp_path / "in.csv"
        path.write_bytes(b"prompt,label\na,1\nb\nc,2,3\n\xff,4\n,5\nd,6\n")
        wanted = ["a", "invalid_csv_line", "invalid_csv_line", "invalid_csv_line", "empty_prompt", "d"]
        assert prompts_of(path) == wanted

    def test_cells_are_never_sampling_fields(self, tmp_path: Path) -> None:
        path = tmp_path / "in.csv"
        path.write_bytes(b"prompt,temperature,n\nweather,31.5,many\n")
        (row,) = rows_of(path)
        assert row.request is not None and (row.request.params.temperature, row.request.params.n) == (1.0, 1)

    def test_long_cells_are_read(self, tmp_path: Path) -> None:
        path = tmp_path / "in.csv"
        path.write_bytes(b"prompt\n" + b"x" * 300_000 + b"\n")
        assert [len(p) for p in prompts_of(path)] == [300_000]

    def test_columns_must_be_there(self, tmp_path: Path) -> None:
        path = tmp_path / "in.csv"
        path.write_bytes(b"text,label\na,b\n")
        with pytest.raises(UsageError, match=r"no column 'prompt'.*text, label"):
            rows_of(path)
        with pytest.raises(UsageError, match=r"no column 'txt'.*did you mean 'text'"):
            rows_of(path, template="Classify: {txt}")

    def test_packed(self, tmp_path: Path) -> None:
        path = tmp_path / "in.csv.gz"
        path.write_bytes(gzip.compress(b"prompt\na\n"))
        assert prompts_of(path) == ["a"]


class TestParquet:
    def write(self, path: Path, columns: dict[str, Any]) -> Path:
        pa.parquet.write_table(pa.table(columns), path, row_group_size=2)
        return path

    def test_prompts_messages_and_sampling_fields(self, tmp_path: Path) -> None:
        chat = [{"role": "user", "content": "hi"}]
        columns = {"custom_id": [7, 8, None], "prompt": ["a", None, ""], "messages": [None, chat, None]}
        path = self.write(tmp_path / "in.parquet", {**columns, "max_tokens": [3, None, None]})
        rows = rows_of(path)
        assert [row.custom_id for row in rows] == ["7", "8", "2"]
        assert rows[0].request is not None and rows[0].request.params.max_tokens == 3
        assert rows[1].request is not None and rows[1].request.messages == chat
        assert rows[2].error is not None and rows[2].error.code == "empty_prompt"

    def test_token_ids(self, tmp_path: Path) -> None:
        path = self.write(tmp_path / "in.parquet", {"prompt": [[1, 2], [3, 900]]})
        assert prompts_of(path, width=512) == [[1, 2], "invalid_token_id"]

    def test_damage_stops_before_anything_runs(self, tmp_path: Path) -> None:
        path = tmp_path / "in.parquet"
        path.write_bytes(b"PAR1 not really")
        with pytest.raises(InputError, match="not a readable Parquet file"):
            rows_of(path)


class TestTemplates:
    def test_columns_of_any_kind(self, tmp_path: Path) -> None:
        path = write_rows(tmp_path / "in.jsonl", [{"text": "a", "n": 3, "tags": ["x"]}, {"text": None, "n": 1}])
        wanted = ['{a} 3 ["x"]', "missing_required_parameter"]
        assert prompts_of(path, template="{{{text}}} {n} {tags}") == wanted

    def test_sampling_fields_still_count_unless_the_prompt_uses_them(self, tmp_path: Path) -> None:
        path = write_rows(tmp_path / "in.jsonl", [{"text": "a", "n": 3, "max_tokens": 9}])
        (row,) = rows_of(path, template="{text} {n}")
        assert row.request is not None and (row.request.params.n, row.request.params.max_tokens) == (1, 9)

    def test_chat(self, tmp_path: Path) -> None:
        path = write_rows(tmp_path / "in.jsonl", [{"text": "a"}])
        (row,) = rows_of(path, template="Label: {text}", chat=True)
        assert row.request is not None and row.request.messages == [{"role": "user", "content": "Label: a"}]

    @pytest.mark.parametrize("text", ["{", "{}", "a } b", "no column", "{text!r}", "{text:>9}"])
    def test_what_is_not_a_template(self, text: str, tmp_path: Path) -> None:
        path = write_rows(tmp_path / "in.jsonl", [{"text": "a"}])
        with pytest.raises(UsageError, match="--prompt"):
            rows_of(path, template=text)

    def test_nothing_is_evaluated(self, tmp_path: Path) -> None:
        path = write_rows(tmp_path / "in.jsonl", [{"text": "a"}, {"text.__class__": "column"}])
        assert prompts_of(path, template="{text.__class__}") == ["missing_required_parameter", "column"]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
NAMES = ["custom_id", "prompt", "messages", "method", "url", "body", "n", "stop", "logprobs", "top_logprobs", "seed"]
NAMES += [
    "max_tokens",
    "max_completion_tokens",
    "logit_bias",
    "tools",
    "best_of",
    "model",
    "stop_token_ids",
    "bad_words",
]
ROWS = st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=6), JSON_VALUES, max_size=5)
LINES = st.binary(max_size=30) | ROWS.map(lambda row: json.dumps(row).encode())


@settings(max_examples=300)
@given(st.lists(LINES | ROWS.map(lambda row: json.dumps({"body": row}).encode()), min_size=1, max_size=8))
def test_no_bytes_make_the_reader_raise(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(b"\n".join(lines))
    physical = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    wanted = [number for number, line in enumerate(physical, 1) if line.strip()]
    try:
        rows = rows_of(path, width=512)
    except (EmptyInput, InputError):  # bytes may begin as gzip does
        assert not wanted or path.read_bytes().startswith(b"\x1f\x8b")
        return
    assert [row.line for row in rows] == wanted
    assert [row.row for row in rows] == list(range(len(rows)))
    assert all((row.request is None) != (row.error is None) for row in rows)


def test_output_follows_names_of_plain_rows(tmp_path: Path) -> None:
    source = write_rows(
        tmp_path / "in.jsonl", [{"prompt": "a"}, {"custom_id": "x", "prompt": [1, 2]}, b"{", {"prompt": "b"}]
    )
    make_job(source, tmp_path / "out.jsonl").run()
    assert [row["custom_id"] for row in read_rows(tmp_path / "out.jsonl")] == ["0", "x", None, "3"]
