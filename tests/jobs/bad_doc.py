"""Writes docs/bad_input.md from what a job really does with every bad input: `python -m tests.jobs.bad_doc`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from tests.jobs.bad_cases import CASES, Case, good_row
from tests.jobs.fakes import make_job, read_rows, write_rows

DOC = Path(__file__).parents[2] / "docs" / "bad_input.md"
HEAD = """# What bad input becomes

A row that cannot be run becomes an error row; the job goes on, its other rows come out byte for byte as without it, and
the command ends with exit code 3. This page is written by `python -m tests.jobs.bad_doc` and held to be true by
`tests/jobs/test_bad_input.py`; the numbers are those of the project's list of sixty bad inputs.

In plain rows the error stands under `error`; in OpenAI batch lines it stands under `response.body.error`, with its HTTP
status under `response.status_code`, as OpenAI writes it.

| no. | row | expected | plain | OpenAI | message |
|--:|---|---|---|---|---|
"""
TAIL = """
## Files

| no. | file | what happens |
|--:|---|---|
| 1, 2 | 0 bytes, or blank lines only | `empty_file`, exit code 2, nothing is written |
| 3 | UTF-8 byte order mark | ignored |
| 4 | UTF-16, UTF-32 | refused with exit code 4; the message says how to convert the file |
| 6 | no newline at the end | accepted |
| 7 | last line cut off | that row is `invalid_json_line`, with a hint that the file may be truncated |
| 8 | CRLF line ends | the same output bytes as with LF |
| 9 | blank lines in the middle | skipped; line numbers in messages stay those of an editor |
| 15 | more than 50,000 rows | no limit |
| - | an output that is a pipe, a device, a stream or a directory | exit code 2, nothing is touched |
| - | an output that is a link | the file it names is written, the link stays; the store lies beside that file |
| - | an output whose name leaves no room for the longer names beside it | exit code 2, nothing is run |
| - | a file that appears at the output during the run | left alone; exit code 2, and the same command again writes it |
| - | an input named like the output, its store or its parts, also through links | exit code 2, nothing is touched |
| - | JSON over several lines, a broken JSON array, .bz2, .xz, .zip, .xlsx | refused, exit code 4 |
| - | damaged or cut .gz or .zst file | rows before the damage are run, one `damaged_input` row stands for the rest |
| - | gzip damaged before its first line | exit code 4, nothing is run |
| - | damaged Parquet | exit code 4, nothing is run |
| - | `-`, `/dev/stdin`, `<(...)`, a FIFO | read, by way of a file that only its owner can read (see below) |
| - | a FIFO without a writer | refused after 10 seconds, exit code 2 |
| - | a directory, device or socket | refused, exit code 2 |
| - | an input that changes while the job runs | the job stops with exit code 4 and keeps its answers |

What comes through a pipe is copied into a file beside the output (by `plan` into the directory for temporary files),
which is removed at the end. A resume needs the same content once more.

## JSON lines

A line is a row when it is one JSON object as RFC 8259 has it, in UTF-8. Beyond that:

- Only a line feed ends a line; a carriage return before it is a blank. A line of blanks is no row.
- Of a key that is given twice the last value counts.
- Whole numbers beyond 64 bits become floating-point numbers. Numbers beyond those (1E400), NaN, Infinity, lone
  surrogates in escapes, control characters in a text and bytes that are not UTF-8 make the line an error row.
- Lists and objects may be nested 128 deep; a line nested deeper is an error row.
- Of an error row the `custom_id` is shown wherever a reader that lets all this pass finds it (up to 512 levels deep);
  it is null in the output where that reader finds none.

`umbel verify` reads by the same rules with code of its own.

## CSV

- Cells are separated by commas and may stand in double quotation marks, in which a mark is written twice. A mark
  within a cell that does not begin with one is text.
- A record in which a mark is never closed, or is followed by text, is one `invalid_csv_line` row for its first line.
  The lines after it are read on their own, so no other row is lost.
- A record of several lines may have 16 MB. NUL bytes and carriage returns within a line are errors of the record.

## Parquet

- Bytes are their UTF-8 text, dates and times are as in ISO 8601 (2024-01-02, 2024-01-02T03:04:05), decimals have all
  their digits (1.50), NaN is null, maps are objects.
- A cell that cannot be read (not UTF-8, a date out of range) is an error of its row where a row needs it.
- Whole numbers that a table holds as floating-point numbers (16.0, as integers become in a column with gaps) are whole
  numbers where a field or `custom_id` wants one.

## Rules

- `custom_id` is null in the output where the row has none that can be read. Plain rows without one go by their number.
- Of rows with the same `custom_id` the first is answered; each later one is an error that names both lines.
- What no check foresaw (a library fails over one row) is `internal_error`, for that row alone; `--retry-failed` tries
  it again.
- A prompt of more than 1,024 characters for each position of the context (and more than 1,048,576 in all) is
  `context_length_exceeded` without being tokenised.
- A row may ask for at most: `n` 16,384, 4 stop strings of 4,096 characters, 1,024 stop token ids, 20 logprobs,
  a `custom_id` of 512 characters, a line of 16 MB.
- `max_tokens` beyond the room left in the context is no error: the row ends by length where the context ends.
- A line of `/v1/completions` without `max_tokens` gets 16 tokens, as from OpenAI and vLLM, unless `--max-tokens` says
  otherwise; a note says how many rows did. Other rows may run to the end of the context.
- `choices` are at least two texts, of which none is the beginning of another, token for token; `continuations` are 1 to
  4,096 texts or lists of ids, none of them empty. A row is an error as a whole where one of its continuations is.
- A stop string that is the text of a special token ends the row at that token; one that only holds or begins such a
  text does not match there, and a note says so.
- A row's chat template sees the day on which the job was first started, also after a resume.
- Text that looks like a special token is encoded as the model's tokenizer encodes it.
- A model name other than that of `--model` (or its last part) is `model_not_found`; `--served-model-name` adds names.
- With `--strict` a row at fault, or an unknown field, stops the job before the model is loaded, with exit code 4.
- `bad_words` are texts with one token at least, as vLLM takes them; token ids go into `logit_bias` with -100.

Of case 27 the offline job
knows one half: a job runs one model, so a second model's name is `model_not_found`. Cases 16, 18, 57-59 belong to the
server.
"""


def document(directory: Path) -> str:
    """The page, from jobs run in `directory`."""
    seen = {dialect: _seen(directory, dialect) for dialect in ("plain", "chat", "completion")}
    rows: dict[tuple[int, str, str], dict[str, str]] = {}
    for case in CASES:
        row = rows.setdefault((case.number, case.what, case.code or "answered"), {"plain": "-", "openai": "-"})
        code, message = seen[case.dialect][case]
        row["plain" if case.dialect == "plain" else "openai"] = f"`{code}`"
        row.setdefault("message", _cell(message))
    table = [
        f"| {number} | {_cell(what)} | `{code}` | {row['plain']} | {row['openai']} | {row['message']} |"
        for (number, what, code), row in rows.items()
    ]
    return HEAD + "\n".join(table) + "\n" + TAIL


def _seen(directory: Path, dialect: str) -> dict[Case, tuple[str, str]]:
    found = {}
    for case in (case for case in CASES if case.dialect == dialect):
        lines: list[Any] = [good_row(dialect, i) for i in range(5)]
        source = write_rows(directory / "doc.jsonl", [*lines, case.line])
        output = directory / "doc.answers.jsonl"
        make_job(source, output, fresh=output.exists()).run()
        found[case] = _error(read_rows(output)[5])
    return found


def _error(item: dict[str, Any]) -> tuple[str, str]:
    error = item["response"]["body"].get("error") if "response" in item else item["error"]
    return ("answered", "") if error is None else (error["code"], error["message"])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        DOC.parent.mkdir(exist_ok=True)
        DOC.write_text(document(Path(place)))
