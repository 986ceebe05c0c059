"""Files as people make them: marks, line ends, packing, tables; what is read and what is refused."""

from __future__ import annotations

import bz2
import datetime
import decimal
import gzip
import json
import lzma
import re
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.jobs.fakes import make_job, read_rows, write_rows
from tests.parameters import some_of
from umbel.errors import EmptyInput, InputError, InvalidRequest, UsageError
from umbel.jobs.read.formats.lines import read_lines
from umbel.jobs.read.records import InputRow, ReadOptions, Style
from umbel.jobs.read.source import Source
from umbel.jobs.verify import verify
from umbel.jobs.verify_input import input_ids

PLAIN = [{"custom_id": f"row-{i}", "prompt": f"text {i}"} for i in range(5)]


def rows_of(path: Path, **options: Any) -> list[InputRow]:
    return list(Source(path, ReadOptions(**options)).rows())


def prompts_of(path: Path, **options: Any) -> list[Any]:
    return [row.request.prompt if row.request else row.error and row.error.code for row in rows_of(path, **options)]


def output_of(directory: Path, name: str, data: bytes) -> bytes:
    source, output = directory / name, directory / f"{name}.out.jsonl"
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


JSONL = "".join(json.dumps(row) + "\n" for row in PLAIN).encode()
FOREIGN = {
    "utf16.jsonl": (JSONL.decode().encode("utf-16"), "iconv"),
    "utf16-le.jsonl": (JSONL.decode().encode("utf-16-le"), "iconv"),
    "utf16-be.csv": ("prompt\na\n".encode("utf-16-be"), "iconv"),
    "utf16.csv.gz": (gzip.compress("prompt\na\n".encode("utf-16")), "iconv"),
    "utf32.jsonl": (JSONL.decode().encode("utf-32"), "iconv"),
    "pretty.json": (b'{\n  "prompt": "a"\n}\n', "several lines"),
    "p.jsonl.bz2": (bz2.compress(JSONL), "bunzip2"),
    "p.jsonl.xz": (lzma.compress(JSONL), "unxz"),
    "p.jsonl.zst": (b"\x28\xb5\x2f\xfd" + JSONL, "damaged or cut"),
    "named.jsonl": (bz2.compress(JSONL), "bunzip2"),
    "p.zip": (b"PK\x03\x04" + bytes(40), "zip"),
    "p.xlsx": (b"PK\x03\x04" + bytes(40), "CSV"),
    "p.tar.gz": (gzip.compress(b"in.jsonl".ljust(257, b"\0") + b"ustar"), "tar"),
    "p.data": (b"PAR1" + bytes(40), ".parquet"),
}


ARRAYS = {
    "array.json": b'\xef\xbb\xbf\n [\n {"prompt": "a"},\n {"prompt": "b"}\n]\n',
    "line.json": b'[{"prompt": "a"}, {"prompt": "b"}]',
    "array.jsonl.gz": gzip.compress(b'[ {"prompt": "a"}, {"prompt": "b"}]'),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_one_json_array_is_read_whatever_its_name(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(ARRAYS[name])
    assert prompts_of(tmp_path / name) == ["a", "b"]
    assert list(input_ids(tmp_path / name, templated=False)) == ["0", "1"]


def test_entries_of_an_array_that_are_no_objects_are_error_rows(tmp_path: Path) -> None:
    path = tmp_path / "in.json"
    path.write_text('[{"custom_id": "x", "prompt": "a"}, 7, {"prompt": "b"}]')
    assert prompts_of(path) == ["a", "invalid_json_line", "b"]
    assert list(input_ids(path, templated=False)) == ["x", None, "2"]
    summary = make_job(path, tmp_path / "out.jsonl").run()
    assert (summary.ok, summary.failed) == (2, 1)
    assert verify(path, tmp_path / "out.jsonl").faults == 0


@pytest.mark.parametrize("text", ['[{"prompt": "a"},', '[{"prompt": "a"}] x', '[\n{"prompt": a}]'])
def test_a_broken_array_is_refused_as_a_whole(text: str, tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text(text)
    with pytest.raises(InputError, match="not a JSON array"):
        rows_of(tmp_path / "in.json")


def test_text_is_a_prompt_a_line(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_bytes("\ufeffSay hello.\r\n\n  two \nlast".encode() + b"\n\xff\n")
    assert prompts_of(path) == ["Say hello.", "  two ", "last", "invalid_value"]
    assert [row.line for row in rows_of(path)] == [1, 3, 4, 5]
    assert list(input_ids(path, templated=False)) == ["0", "1", "2", "3"]
    options = ReadOptions(template="Label: {text}")
    assert [row.request.prompt for row in Source(path, options).rows() if row.request] == [
        "Label: Say hello.",
        "Label:   two ",
        "Label: last",
    ]
    with pytest.raises(UsageError, match="'txet'"):
        list(Source(path, ReadOptions(template="{txet}")).rows())


def test_cells_may_be_separated_by_tabs(tmp_path: Path) -> None:
    path = tmp_path / "in.tsv"
    path.write_text('custom_id\tprompt\na, b\t"x\ty\nz"\nc\tplain, with a comma\n')
    assert prompts_of(path) == ["x\ty\nz", "plain, with a comma"]
    assert [row.custom_id for row in rows_of(path)] == list(input_ids(path, templated=False)) == ["a, b", "c"]


@pytest.mark.parametrize("name", ["in.arrow", "in.feather", "stream.arrow"])
def test_arrow_tables_give_the_rows_of_parquet(name: str, tmp_path: Path) -> None:
    table = pa.table({"custom_id": [f"r{i}" for i in range(3_000)], "prompt": [f"p {i}" for i in range(3_000)]})
    opened = pa.ipc.new_stream if name.startswith("stream") else pa.ipc.new_file
    with pa.OSFile(str(tmp_path / name), "wb") as stream, opened(stream, table.schema) as writer:
        writer.write_table(table, max_chunksize=1_700)
    pa.parquet.write_table(table, tmp_path / "in.parquet")
    found = rows_of(tmp_path / name)
    assert found == rows_of(tmp_path / "in.parquet") and len(found) == 3_000
    assert list(input_ids(tmp_path / name, templated=False)) == [row.custom_id for row in found]


def test_a_file_that_is_no_arrow_table_is_refused(tmp_path: Path) -> None:
    for begin in (b"ARROW1", b""):
        (tmp_path / "in.arrow").write_bytes(begin + b"rubbish" * 20)
        with pytest.raises(InputError, match="not a readable Arrow file"):
            rows_of(tmp_path / "in.arrow")


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_no_input_is_refused_once_with_advice(name: str, tmp_path: Path) -> None:
    data, advice = FOREIGN[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=advice) as caught:
        make_job(tmp_path / name, tmp_path / "out.jsonl").run()
    assert caught.value.exit_code == 4
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["p.txt", "p.json", "p.tsv", "rows"])
def test_json_lines_are_read_under_any_name(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(JSONL)
    assert prompts_of(tmp_path / name) == [row["prompt"] for row in PLAIN]


@pytest.mark.parametrize("first", [b"[1]", b"[[1, 2]]", b"[]", b"{", b"\x00\x00\x00", b"text"])
def test_a_broken_first_line_is_no_reason_to_refuse_the_others(first: bytes, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "in.jsonl", [first, *PLAIN])
    assert prompts_of(path) == ["invalid_json_line", *[row["prompt"] for row in PLAIN]]


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
    found = [(n, line.code if isinstance(line, InvalidRequest) else line) for n, line in read_lines(path, 30)]
    long = "line_too_long"
    assert found == [(1, long), (2, b"ok\n"), (3, long), (4, b"z" * 30 + b"\n"), (5, b"end")]


def test_the_first_object_decides_between_plain_and_openai(tmp_path: Path) -> None:
    body = {"prompt": "x"}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": body}
    path = write_rows(tmp_path / "in.jsonl", [b"broken", b"", line])
    rows = rows_of(path)
    assert [row.style for row in rows] == [Style.COMPLETION, Style.COMPLETION]
    path = write_rows(tmp_path / "in.jsonl", [{"prompt": "p"}, line])
    assert prompts_of(path) == ["p", "missing_required_parameter"]


@pytest.mark.parametrize("cut", [2, 10, 20])
def test_a_gzip_damaged_before_its_first_row_stops_before_anything_runs(cut: int, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl.gz"
    source.write_bytes(gzip.compress(b"\n".join(json.dumps(row).encode() for row in PLAIN))[:cut])
    with pytest.raises(InputError, match="gzip file is damaged or cut") as caught:
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

    def test_cells_of_sampling_fields(self, tmp_path: Path) -> None:
        path = tmp_path / "in.csv"
        path.write_text(
            "prompt,temperature,n,stop,max_tokens,ignore_eos,logprobs\n"
            'a,0.5,2,END,7,True,1\nb,,,"[""x"",""y""]",,,\nc,1,3.0,5,4.0,false,\nd,hot,,,,,\n'
        )
        rows = rows_of(path)
        found = [
            p and (p.temperature, p.n, p.stop, p.max_tokens, p.ignore_eos, p.logprobs)
            for p in (row.request and row.request.params for row in rows)
        ]
        assert found[:3] == [
            (0.5, 2, ("END",), 7, True, 1),
            (1.0, 1, ("x", "y"), None, False, None),
            (1, 3, ("5",), 4, False, None),
        ]
        assert rows[3].error is not None and rows[3].error.param == "temperature"

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


def test_one_zero_byte_is_a_bad_row_and_no_other_encoding(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{\0"prompt": "a"}\n{"prompt": "b"}\n')
    assert [row.error is not None for row in rows_of(path, width=512)] == [True, False]


@settings(max_examples=300)
@given(st.lists(LINES | ROWS.map(lambda row: json.dumps({"body": row}).encode()), min_size=1, max_size=8))
def test_no_bytes_make_the_reader_raise(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(b"\n".join(lines))
    physical = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    wanted = [number for number, line in enumerate(physical, 1) if line.strip()]
    try:
        rows = rows_of(path, width=512)
    except EmptyInput:
        assert not wanted
        return
    except InputError as error:  # bytes may begin as gzip, UTF-16 or a PDF do, or be an array
        assert re.search("gzip|nothing was run", str(error)) and not re.match(rb"\{[^\0]", physical[0])
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


CSV_ROWS = ["id,prompt", "1,one", '2,"two', "3,three", "4,four", "5,five"]


class TestQuotes:
    """No row of a CSV file is lost to a quotation mark; what is not properly quoted is an error of its own line."""

    @pytest.mark.parametrize(
        "lines, wanted",
        [
            (CSV_ROWS, ["one", "!", "three", "four", "five"]),
            ([*CSV_ROWS[:3], '3,"three', *CSV_ROWS[4:]], ["one", "!", "!", "four", "five"]),
            ([*CSV_ROWS[:3], "3,three", '4,"four"', "5,five"], ["one", "!", "three", "four", "five"]),
            (["prompt", '"a', "", "b"], ["!", "b"]),
            (["prompt", '"a" b', "c"], ["!", "c"]),
            (["prompt", 'a "b" c', "d"], ['a "b" c', "d"]),
            (["prompt", '"a ""b"" c"', '""""', '"x""'], ['a "b" c', '"', "!"]),
            (["prompt", '"a', "", 'b"', "c"], ["a\n\nb", "c"]),
            (["prompt", "a\rb", "c"], ["!", "c"]),
            (["prompt", "a\0b", "c"], ["!", "c"]),
            (["prompt", '"a', 'b" c', "d"], ["!", 'b" c', "d"]),
            (["prompt,id", "a,1,", "b", "c,3"], ["!", "!", "c"]),
            ([",prompt", "0,a", "1,b"], ["a", "b"]),
        ],
    )
    @pytest.mark.parametrize("end", ["\n", "\r\n", ""])
    def test_every_row_is_there(self, lines: list[str], wanted: list[str], end: str, tmp_path: Path) -> None:
        path = tmp_path / "in.csv"
        path.write_bytes(((end or "\n").join(lines) + end).encode())
        found = ["!" if text == "invalid_csv_line" else text.replace("\r\n", "\n") for text in prompts_of(path)]
        assert found == wanted
        make_job(path, tmp_path / "out.jsonl").run()
        verdict = verify(path, tmp_path / "out.jsonl")
        assert (verdict.findings, verdict.rows) == ([], len(wanted))

    def test_the_message_names_the_line_where_the_record_begins(self, tmp_path: Path) -> None:
        path = tmp_path / "in.csv"
        path.write_text("\n".join(CSV_ROWS))
        (error,) = [row.error for row in rows_of(path) if row.error]
        assert error.message.startswith("line 3: a quotation mark opens a cell and none closes it")

    def test_a_mark_without_end_costs_bounded_memory(self, tmp_path: Path) -> None:
        path = tmp_path / "in.csv"
        path.write_bytes(b'prompt\n"open\n' + b"x" * 99 + b"\n" + (b"y" * 9_999_999 + b"\n") * 3)
        assert [text[:3] if text[:1] in "xy" else text for text in prompts_of(path)] == [
            "line_too_long",
            "xxx",
            *["yyy"] * 3,
        ]

    @pytest.mark.parametrize(
        "header, why",
        [
            (b"prompt\rid\r", "carriage return"),
            (b'"prompt', "header line cannot be read"),
            (b"prompt\xff", "not UTF-8"),
            (b"id,id", "named twice"),
            (b"prompt;id", "semicolons"),
            (b"id\tprompt", "tabs"),
        ],
    )
    def test_a_header_that_cannot_be_used_is_refused_once(self, header: bytes, why: str, tmp_path: Path) -> None:
        path = tmp_path / "in.csv"
        path.write_bytes(header + b"\na,b\n")
        with pytest.raises((InputError, UsageError), match=why):
            make_job(path, tmp_path / "out.jsonl").run()
        assert [p.name for p in tmp_path.iterdir()] == ["in.csv"]


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, codec="zstd", asbytes=True))


def test_zstandard_is_unpacked_by_content(tmp_path: Path) -> None:
    for name in ("in.jsonl.zst", "in.jsonl"):
        (tmp_path / name).write_bytes(zstd(JSONL[:20]) + zstd(JSONL[20:]))
        assert prompts_of(tmp_path / name) == [row["prompt"] for row in PLAIN]
    (tmp_path / "in.csv.zst").write_bytes(zstd(b"prompt\na\nb\n"))
    assert prompts_of(tmp_path / "in.csv.zst") == ["a", "b"]
    (tmp_path / "bad.jsonl.zst").write_bytes(JSONL)
    with pytest.raises(InputError, match=r"named \.zst but not a Zstandard file"):
        rows_of(tmp_path / "bad.jsonl.zst")


def test_rows_before_the_damage_of_a_zstandard_file_are_answered(tmp_path: Path) -> None:
    lines = b"".join(json.dumps({"prompt": f"text {i} {i * 7919}"}).encode() + b"\n" for i in range(40_000))
    source = tmp_path / "in.jsonl.zst"
    source.write_bytes(zstd(lines)[:-2_000])
    rows = rows_of(source)
    assert len(rows) > 1_000 and rows[-1].error is not None and rows[-1].error.code == "damaged_input"
    assert len(list(input_ids(source, templated=False))) == len(rows)


class TestPacked:
    def rows(self, n: int) -> list[bytes]:
        return [json.dumps({"prompt": f"text {i} " + "pad" * (i % 7)}).encode() for i in range(n)]

    @pytest.mark.parametrize("kind", ["cut", "checksum", "length", "middle", "rubbish behind"])
    def test_rows_before_the_damage_are_answered(self, kind: str, tmp_path: Path) -> None:
        lines = self.rows(4_000)
        data = bytearray(gzip.compress(b"\n".join(lines) + b"\n"))
        if kind == "middle":
            data[len(data) // 2] ^= 0xFF
        elif kind in ("checksum", "length"):
            data[-8 if kind == "checksum" else -1] ^= 1
        ends = {"cut": data[:-2_000], "rubbish behind": data + b"rubbish"}
        source = tmp_path / "in.jsonl.gz"
        source.write_bytes(ends.get(kind, data))
        summary = make_job(source, tmp_path / "out.jsonl").run()
        answers = read_rows(tmp_path / "out.jsonl")
        assert (answers[-1]["error"]["code"], answers[-1]["custom_id"]) == ("damaged_input", None)
        if kind in ("checksum", "length", "rubbish behind"):
            assert len(answers) == 4_001
        assert len(answers) > 1_000 and summary.exit_code == 3
        assert any("damaged or cut" in text for text in summary.warnings)
        assert verify(source, tmp_path / "out.jsonl").faults == 0

    def test_every_row_that_was_packed_before_the_cut_is_there(self, tmp_path: Path) -> None:
        lines = self.rows(300)
        packer = zlib.compressobj(wbits=31)
        source, whole = tmp_path / "in.jsonl.gz", b""
        for line in lines:
            whole += packer.compress(line + b"\n") + packer.flush(zlib.Z_FULL_FLUSH)
        source.write_bytes(whole)
        assert len(rows_of(source)) == 301
        source.write_bytes(whole + b"\x07\x07")  # a block of a kind that does not exist
        assert len(rows_of(source)) == 301

    def test_members_and_zeros_behind_one_another(self, tmp_path: Path) -> None:
        source = tmp_path / "in.jsonl.gz"
        lines = self.rows(6)
        parts = [b"\n".join(lines[:2]) + b"\n" + lines[2][:5], b"", lines[2][5:] + b"\n", b"\n".join(lines[3:])]
        source.write_bytes(b"".join(gzip.compress(part) + b"\0" * i for i, part in enumerate(parts)))
        assert prompts_of(source) == [json.loads(line)["prompt"] for line in lines]

    @pytest.mark.parametrize("fill", some_of([b"\n"], [b"x"]), ids=["blank lines", "one line"])
    def test_a_bomb_is_read_in_bounded_memory(self, fill: bytes, tmp_path: Path) -> None:
        source = tmp_path / "in.jsonl.gz"
        packer = zlib.compressobj(9, wbits=31)
        with open(source, "wb") as stream:
            stream.write(packer.compress(b'{"prompt": "before"}\n'))
            for _ in range(300):
                stream.write(packer.compress(fill * 2**20))
            stream.write(packer.compress(b'\n{"prompt": "after"}\n') + packer.flush())
        assert source.stat().st_size < 2**20
        child = f"""
import resource, sys
from pathlib import Path
from umbel.jobs.read.source import Source
from umbel.jobs.verify import verify
from umbel.jobs.verify_input import input_ids
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = list(Source(Path({str(source)!r})).rows())
ids = list(input_ids(Path({str(source)!r}), templated=False))
print(len(rows), len(ids), rows[-1].request.prompt, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
        done = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True)
        rows, ids, last, kib = done.stdout.split()
        assert (rows, ids, last) == (("3", "3", "after") if fill == b"x" else ("2", "2", "after"))
        assert int(kib) < 120 * 2**10


class TestCells:
    """Cells of Parquet tables, in prompts and in fields."""

    def write(self, path: Path, **columns: Any) -> Path:
        pa.parquet.write_table(pa.table(columns), path)
        return path

    WHEN = datetime.datetime(2024, 1, 2, 3, 4)

    @pytest.mark.parametrize(
        "cells, wanted",
        [
            (pa.array([b"the cat"]), "the cat"),
            (pa.array([b"the cat"], pa.large_binary()), "the cat"),
            (pa.array([b"cat"], pa.binary(3)), "cat"),
            (pa.array(["cat"]).dictionary_encode(), "cat"),
            (pa.array([b"cat"]).dictionary_encode(), "cat"),
            (pa.array([datetime.date(2024, 1, 2)]), "2024-01-02"),
            (pa.array([datetime.date(2024, 1, 2)], pa.date64()), "2024-01-02"),
            (pa.array([WHEN], pa.timestamp("ns")), "2024-01-02T03:04:00"),
            (pa.array([1_704_164_640_000_000_001], pa.timestamp("ns")), "2024-01-02T03:04:00"),
            (pa.array([WHEN], pa.timestamp("s", "UTC")), "2024-01-02T03:04:00+00:00"),
            (pa.array([datetime.time(3, 4)]), "03:04:00"),
            (pa.array([datetime.timedelta(hours=3)]), "3:00:00"),
            (pa.array([decimal.Decimal("1.50")]), "1.50"),
            (pa.array([decimal.Decimal("1E-7")]), "0.0000001"),
            (pa.array([1.5], pa.float32()), "1.5"),
            (pa.array([16.0]), "16.0"),
            (pa.array([True]), "true"),
            (pa.array([[1, 2]]), "[1,2]"),
            (pa.array([[decimal.Decimal("1.50")]]), '["1.50"]'),
            (pa.array([{"a": b"x", "d": datetime.date(2024, 1, 2)}]), '{"a":"x","d":"2024-01-02"}'),
            (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), '{"k":1}'),
            (pa.array([float("nan")]), None),
            (pa.array([None], pa.null()), None),
            (pa.array([None], pa.timestamp("ns")), None),
            (pa.array([b"\xff"]), None),
            (pa.array([3_000_000], pa.date32()), None),
            (pa.array([2**52], pa.timestamp("ms")), None),
            (pa.array([[b"\xff"]]), None),
        ],
        ids=lambda value: str(getattr(value, "type", value)),
    )
    def test_in_a_prompt(self, cells: Any, wanted: str | None, tmp_path: Path) -> None:
        path = self.write(tmp_path / "in.parquet", c=pa.chunked_array([cells]), label=["x"])
        (row,) = rows_of(path, template="{c}")
        assert (row.request and row.request.prompt) == wanted
        assert (row.error is None) == (wanted is not None)

    def test_a_text_that_is_not_utf8_is_an_error_of_its_row_alone(self, tmp_path: Path) -> None:
        raw = pa.array([b"one", b"a\xffb", b"three"])
        texts = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
        path = self.write(tmp_path / "in.parquet", custom_id=["a", "b", "c"], prompt=texts)
        assert prompts_of(path) == ["one", "invalid_value", "three"]
        make_job(path, tmp_path / "out.jsonl").run()
        error = read_rows(tmp_path / "out.jsonl")[1]["error"]
        assert error["param"] == "prompt" and "byte 0xff at byte offset 1" in error["message"]
        assert verify(path, tmp_path / "out.jsonl").findings == []
        ids = self.write(tmp_path / "ids.parquet", custom_id=texts, prompt=["x", "y", "z"], other=texts)
        assert [(row.custom_id, row.error is None) for row in rows_of(ids)] == [
            ("one", True),
            (None, False),
            ("three", True),
        ]
        make_job(ids, tmp_path / "ids.jsonl").run()
        assert verify(ids, tmp_path / "ids.jsonl").findings == []

    def test_a_cell_that_nothing_reads_may_hold_anything(self, tmp_path: Path) -> None:
        path = self.write(tmp_path / "in.parquet", prompt=["x"], other=pa.array([2**52], pa.timestamp("ms")))
        assert prompts_of(path) == ["x"]

    @pytest.mark.parametrize("kind", [pa.float64(), pa.float32(), pa.decimal128(21, 2), pa.int8()])
    def test_whole_numbers_of_any_kind(self, kind: Any, tmp_path: Path) -> None:
        limits = pa.array([16, None], pa.int64()).cast(kind)
        path = self.write(tmp_path / "in.parquet", prompt=["a", "b"], max_tokens=limits, custom_id=limits)
        rows = rows_of(path)
        assert [row.request and row.request.params.max_tokens for row in rows] == [16, None]
        if not pa.types.is_decimal(kind):
            assert [row.custom_id for row in rows] == ["16", "1"]
        make_job(path, tmp_path / "out.jsonl").run()
        assert verify(path, tmp_path / "out.jsonl").findings == []

    def test_numbers_of_fields(self, tmp_path: Path) -> None:
        columns = {"temperature": [0.5, float("nan"), None], "n": [1.5, 2.0, None]}
        prices = pa.array([decimal.Decimal("0.25"), None, None])
        path = self.write(tmp_path / "in.parquet", prompt=["a", "b", "c"], top_p=prices, **columns)
        first, second, third = rows_of(path)
        assert first.error is not None and first.error.message == "n=1.5: must be a whole number"
        assert second.request is not None and (second.request.params.n, second.request.params.temperature) == (2, 1.0)
        assert third.request is not None and third.request.params.top_p == 1.0

    def test_a_null_is_not_a_missing_column(self, tmp_path: Path) -> None:
        path = self.write(tmp_path / "in.parquet", tags=["a", None])
        error = rows_of(path, template="{tags}")[1].error
        assert error is not None and "column 'tags', which --prompt uses, is null" in error.message

    @pytest.mark.parametrize(
        "value", [True, 1.5, decimal.Decimal("1.5"), [1], datetime.date(2024, 1, 2), b"id", b"\xff"]
    )
    def test_ids_of_any_kind_are_counted_alike(self, value: Any, tmp_path: Path) -> None:
        path = self.write(tmp_path / "in.parquet", prompt=["a", "b"], custom_id=pa.array([value, None]))
        make_job(path, tmp_path / "out.jsonl").run()
        assert verify(path, tmp_path / "out.jsonl").findings == []

    def test_tables_without_rows_and_with_columns_twice(self, tmp_path: Path) -> None:
        empty = self.write(tmp_path / "empty.parquet", prompt=pa.array([], pa.string()))
        with pytest.raises(EmptyInput, match="empty_file"):
            make_job(empty, tmp_path / "out.jsonl").run()
        pa.parquet.write_table(pa.Table.from_arrays([["a"], ["b"]], ["prompt", "prompt"]), tmp_path / "twice.parquet")
        with pytest.raises(InputError, match="there twice"):
            make_job(tmp_path / "twice.parquet", tmp_path / "out.jsonl").run()
