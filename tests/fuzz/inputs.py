"""Hostile input files: no row is lost, no good row changes, and whatever is wrong is a planned error."""

from __future__ import annotations

import csv
import functools
import io
import json
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from hypothesis import strategies as st

from tests.fuzz.hostile import Draw, as_json, changed, damaged, nested, packed, texts, values
from tests.fuzz.judge import Fault, check_message, survive
from tests.tiny_models import VOCAB_SIZE, make_model
from umbel.batch.reading import LateTokenizer
from umbel.errors import EmptyInput, InputError, UmbelError, UsageError
from umbel.ir.params import SamplingParams
from umbel.jobs.read.prepare import WindowBuilder
from umbel.jobs.read.records import InputRow, ReadOptions
from umbel.jobs.read.scan import scan
from umbel.jobs.read.source import Source
from umbel.jobs.write.answers import Renderer
from umbel.jobs.write.openai_answers import Issuer

CONTEXT = 512
PLAIN = {"custom_id": "bad", "prompt": "Once upon a time", "max_tokens": 4, "temperature": 0.5, "stop": ["x"], "n": 1}
CHAT = {
    "custom_id": "bad",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, "logprobs": True},
}
COMPLETION = CHAT | {"url": "/v1/completions", "body": {"model": "m", "prompt": "Hi", "max_tokens": 4, "logprobs": 2}}
FIELDS = (
    "prompt", "messages", "max_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "stop", "stop_token_ids", "n",
    "logprobs", "logit_bias", "min_tokens", "ignore_eos", "custom_id", "body", "url", "method", "model", "stream",
)  # fmt: skip


@functools.cache
def tokenizer() -> LateTokenizer:
    """One of a tiny model, loaded while its directory is there."""
    with tempfile.TemporaryDirectory() as directory:
        late = LateTokenizer(make_model(Path(directory)))
        late.encode(["text"])
        late.check_stops(SamplingParams())
        return late


def good_rows(dialect: dict[str, Any]) -> list[dict[str, Any]]:
    """Three rows that any file around them must leave as they are."""
    return [json.loads(json.dumps(dialect).replace('"bad"', f'"good-{i}"')) for i in range(3)]


@st.composite
def bad_line(draw: Draw, dialect: dict[str, Any]) -> bytes:
    """One line (or several, where a line end was put in) made of a good one."""
    kind = draw(st.sampled_from(("fields", "tree", "nested", "bytes")))
    row: Any = json.loads(json.dumps(dialect))
    if kind == "fields":
        target = row if draw(st.booleans()) else row.get("body", row)
        target |= draw(st.dictionaries(st.sampled_from(FIELDS) | texts, values, min_size=1, max_size=3))
    elif kind == "tree":
        row = draw(changed(row))
    line = as_json(draw, row)
    if kind == "nested":
        line = line.replace(draw(st.sampled_from((b'"bad"', b'"Hi"', b"4"))), draw(nested()).encode())
    return draw(damaged(line)) if kind == "bytes" else line


@st.composite
def json_file(draw: Draw, dialect: dict[str, Any]) -> bytes:
    """Good rows with bad lines between them, a good one first, as it decides the dialect."""
    lines: list[bytes] = []
    for row in good_rows(dialect):
        lines += [json.dumps(row).encode(), *draw(st.lists(bad_line(dialect), max_size=3))]
    ends = [draw(st.sampled_from((b"\n", b"\n", b"\r\n", b"\n\n", b"\n \t\n"))) for _ in lines[1:]]
    body = b"".join(line + end for line, end in zip(lines, [*ends, draw(st.sampled_from((b"\n", b"")))], strict=True))
    return draw(st.sampled_from((b"", b"\xef\xbb\xbf"))) + body


def count_lines(data: bytes) -> int:
    """Lines that are not blank, counted without any reader."""
    return sum(bool(line.strip()) for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n"))


def unpacked(data: bytes) -> bytes | None:
    """What a gzip file holds, None when it is damaged; by zlib itself, not by the reader's library."""
    parts = []
    while data.strip(b"\x00"):
        member = zlib.decompressobj(wbits=31)
        try:
            parts.append(member.decompress(data))
        except zlib.error:
            return None
        if not member.eof:
            return None
        data = member.unused_data
    return b"".join(parts)


def read(name: str, data: bytes, options: ReadOptions) -> list[InputRow] | UmbelError:
    """The rows of a file, or the planned error that refuses it as a whole."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / name
        path.write_bytes(data)
        return survive(lambda: list(Source(path, options).rows()), InputError, UsageError)


def check_rows(rows: list[InputRow], good: list[InputRow], n_good: int) -> None:
    """Rows are numbered without a gap, errors can be written, and good rows are what they are alone."""
    if [row.row for row in rows] != list(range(len(rows))):
        raise Fault("rows are not numbered from 0 without a gap")
    renderer = Renderer(Issuer("job", "m"), lambda ids: [""] * len(ids))
    for row in rows:
        if (row.request is None) == (row.error is None):
            raise Fault(f"row {row.row} has neither or both of a request and an error")
        if row.error is not None:
            check_message(row.error.message)
            survive(lambda row=row: renderer.failure(row.head, row.error))
    found = {row.custom_id: row._replace(row=0, line=0) for row in rows if row.error is None}
    wanted = {row.custom_id: row._replace(row=0, line=0) for row in good}
    if len(wanted) != n_good or any(row.error for row in good):
        raise Fault("the good rows alone are not good")
    for name, row in wanted.items():
        if found.get(name) != row:
            raise Fault(f"the good row {name} became {found.get(name)!r:.300}")


def check_tokens(rows: list[InputRow], good: list[InputRow]) -> None:
    """Tokenising keeps every row, and gives good ones the ids that they have alone."""
    window, alone = (build_window(part) for part in (rows, good))
    if window.rows != len(rows):
        raise Fault(f"{len(rows)} rows, {window.rows} after tokenising")
    ids = {window.names.head(0, i).custom_id: window.workload.prompt(i).tolist() for i in range(len(window.names))}
    for i in range(len(alone.names)):
        if ids.get(alone.names.head(0, i).custom_id) != alone.workload.prompt(i).tolist():
            raise Fault(f"the ids of {alone.names.head(0, i).custom_id} changed")


def build_window(rows: list[InputRow]) -> Any:
    builder = WindowBuilder(tokenizer(), VOCAB_SIZE, CONTEXT)
    survive(lambda: builder.take(rows))
    return survive(builder.build)


def check_lines(data: bytes, dialect: dict[str, Any]) -> None:
    """All that must hold of an unpacked file of JSON lines."""
    options = ReadOptions(SamplingParams(max_tokens=3), width=VOCAB_SIZE)
    rows = read("in.jsonl", data, options)
    good = read("in.jsonl", b"\n".join(json.dumps(row).encode() for row in good_rows(dialect)), options)
    if isinstance(rows, UmbelError) or isinstance(good, UmbelError):
        raise Fault(f"the whole file is refused: {rows}")
    if len(rows) != count_lines(data):
        raise Fault(f"{count_lines(data)} lines, {len(rows)} rows")
    check_rows(rows, good, 3)
    check_tokens(rows, good)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "in.jsonl"
        path.write_bytes(data)
        found = survive(lambda: scan(path, (b'"prompt"'[:8],)))
    if len(found) != len(rows):
        raise Fault(f"{len(rows)} rows, {len(found)} in the quick pass")


def check_plain_lines(data: bytes) -> None:
    check_lines(data, PLAIN)


def check_openai_lines(case: tuple[dict[str, Any], bytes]) -> None:
    check_lines(case[1], case[0])


def check_packed_lines(data: bytes) -> None:
    rows = read("in.jsonl.gz", data, ReadOptions())
    whole = unpacked(data)
    if whole is None or isinstance(rows, UmbelError) or not data.startswith(b"\x1f\x8b"):
        return
    if len(rows) != count_lines(whole):
        raise Fault(f"{count_lines(whole)} lines, {len(rows)} rows")


GOOD_CELLS = [[f"good-{i}", f"a text, {i}", "x"] for i in range(3)]


@st.composite
def csv_file(draw: Draw) -> bytes:
    """A table with good records, and between them records of odd cells, or bytes put in."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator=draw(st.sampled_from(("\n", "\r\n"))))
    writer.writerow(["custom_id", "prompt", "note"])
    parts = [out.getvalue().encode()]
    for cells in GOOD_CELLS:
        out.seek(0)
        out.truncate()
        writer.writerow(cells)
        parts.append(out.getvalue().encode())
        for odd in draw(st.lists(st.lists(texts, max_size=4), max_size=2)):
            line = ",".join(draw(st.sampled_from((cell, f'"{cell}"', f'"{cell}', f'{cell}"x'))) for cell in odd)
            parts.append(draw(damaged((line + "\n").encode("utf-8", "surrogatepass"), 2)) + b"\n")
    return b"".join(parts)


def check_csv(data: bytes) -> None:
    rows = read("in.csv", data, ReadOptions())
    header = b"custom_id,prompt,note\n"
    good = read("in.csv", header + b"".join(f'{a},"{b}",{c}\n'.encode() for a, b, c in GOOD_CELLS), ReadOptions())
    assert isinstance(good, list)
    if isinstance(rows, UmbelError):
        if b'"' not in data.replace(b'"a text, ', b"").replace(b'",x', b""):
            raise Fault(f"a table without odd quotes is refused: {rows}")
        return
    ids = [row.custom_id for row in rows]
    if sorted(set(ids) & {"good-0", "good-1", "good-2"}) != ["good-0", "good-1", "good-2"]:
        raise Fault("good records are gone, and no error says so")
    check_rows(rows, good, 3)
    check_tokens(rows, good)


@st.composite
def column(draw: Draw, n_rows: int) -> pa.Array:
    """A column of any type, texts that are not UTF-8 among them."""
    kind = draw(st.sampled_from(("text", "broken", "ints", "floats", "bytes", "times", "lists", "structs", "nulls")))
    cells = st.lists(st.none() | st.text(max_size=8), min_size=n_rows, max_size=n_rows)
    if kind == "broken":
        pieces = draw(st.lists(st.binary(max_size=6), min_size=n_rows, max_size=n_rows))
        ends = np.cumsum([0, *map(len, pieces)], dtype=np.int32)
        return pa.StringArray.from_buffers(n_rows, pa.py_buffer(ends.tobytes()), pa.py_buffer(b"".join(pieces)))
    strategy, kinds = {
        "text": (st.text(max_size=8), (pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string()))),
        "ints": (st.integers(0, 127), (pa.int8(), pa.uint64(), pa.decimal128(20, 3))),
        "floats": (st.floats(width=32), (pa.float32(), pa.float64())),
        "bytes": (st.binary(max_size=8), (pa.binary(), pa.large_binary())),
        "times": (st.integers(-(2**40), 2**40), (pa.timestamp("us"), pa.timestamp("ms", "UTC"), pa.duration("s"))),
        "lists": (st.lists(st.integers(-3, 400), max_size=4), (pa.list_(pa.int64()), pa.large_list(pa.float64()))),
        "structs": (st.fixed_dictionaries({"role": st.text(max_size=3), "content": st.text(max_size=3)}), (None,)),
        "nulls": (st.none(), (pa.null(), pa.date32(), pa.time64("us"), pa.bool_())),
    }[kind]
    cells = draw(st.lists(st.none() | strategy, min_size=n_rows, max_size=n_rows))
    return pa.array(cells, draw(st.sampled_from(kinds)))


@st.composite
def parquet_file(draw: Draw) -> tuple[bytes, int]:
    """(a table's bytes, its rows): a good column or none, and others of any type."""
    n_rows = draw(st.integers(0, 5))
    names = draw(st.lists(st.sampled_from(("custom_id", "prompt", "messages", "note", *FIELDS[2:8])), unique=True))
    table = pa.table({name: draw(column(n_rows)) for name in [*names, "text"]})
    out = io.BytesIO()
    pa.parquet.write_table(table, out, row_group_size=draw(st.sampled_from((1, 100))))
    return out.getvalue(), n_rows


def check_parquet(case: tuple[tuple[bytes, int], str | None]) -> None:
    (data, n_rows), template = case
    rows = read("in.parquet", data, ReadOptions(template=template))
    if isinstance(rows, UmbelError):
        if not isinstance(rows, (EmptyInput, UsageError)):
            raise Fault(f"a sound table is refused: {rows}")
        return
    if len(rows) != n_rows:
        raise Fault(f"{n_rows} rows in the table, {len(rows)} read")
    check_rows(rows, [], 0)
    check_tokens(rows, [])


def check_damaged_parquet(data: bytes) -> None:
    rows = read("in.parquet", data, ReadOptions())
    if not isinstance(rows, UmbelError):
        check_rows(rows, [], 0)


READERS = {
    "plain_lines": (json_file(PLAIN), check_plain_lines),
    "openai_lines": (
        st.sampled_from((CHAT, COMPLETION)).flatmap(lambda dialect: st.tuples(st.just(dialect), json_file(dialect))),
        check_openai_lines,
    ),
    "packed_lines": (json_file(PLAIN).flatmap(packed), check_packed_lines),
    "csv": (csv_file(), check_csv),
    "parquet": (st.tuples(parquet_file(), st.sampled_from((None, "{text}", "{text} {note}"))), check_parquet),
    "damaged_parquet": (parquet_file().flatmap(lambda case: damaged(case[0])), check_damaged_parquet),
}
