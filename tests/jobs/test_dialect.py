"""The reader and the checker take the same lines for rows and the same ids from them, sharing no code."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.jobs.fakes import make_job
from umbel.errors import EmptyInput, InputError
from umbel.jobs.read.source import Source
from umbel.jobs.verify import verify
from umbel.jobs.verify_input import input_ids

BOM = b"\xef\xbb\xbf"
GOOD = b'{"custom_id": "good", "prompt": "x"}'
FINE, FAULT = True, False


def member(text: bytes) -> bytes:
    """A row with an id and one member more."""
    return b'{"custom_id": "a", "prompt": "x", ' + text + b"}"


# After the cases of JSONTestSuite (y: to be accepted, n: to be refused, i: free). (line, accepted, id)
CASES: list[tuple[str, bytes, bool, str | None]] = [
    ("y empty key", member(b'"": 0'), FINE, "a"),
    ("y minus zero", member(b'"m": -0'), FINE, "a"),
    ("y exponent", member(b'"m": 1E+2'), FINE, "a"),
    ("y exponent lower", member(b'"m": 123e-5'), FINE, "a"),
    ("y tiny", member(b'"m": 1e-400'), FINE, "a"),
    ("y many digits", member(b'"m": 0.' + b"1" * 400), FINE, "a"),
    ("y 64 bits", member(b'"m": 18446744073709551615'), FINE, "a"),
    ("y key twice", member(b'"m": 1, "m": 2'), FINE, "a"),
    ("y id twice, the last counts", member(b'"custom_id": "b"'), FINE, "b"),
    ("y id twice, the last is no text", member(b'"custom_id": 7'), FAULT, None),
    ("y id by escapes", b'{"custom_id": "\\u0061", "prompt": "x"}', FINE, "a"),
    ("y key by escapes", b'{"custom\\u005fid": "a", "prompt": "x"}', FINE, "a"),
    ("y surrogate pair", member(b'"m": "\\ud83d\\ude39"'), FINE, "a"),
    ("y noncharacter", member(b'"m": "\\uffff"'), FINE, "a"),
    ("y escaped NUL", member(b'"m": "\\u0000"'), FINE, "a"),
    ("y delete", member(b'"m": "\x7f"'), FINE, "a"),
    ("y line separator", member('"m": "\u2028\u2029\u0085"'.encode()), FINE, "a"),
    ("y escapes", member(b'"m": "\\"\\\\\\/\\b\\f\\n\\r\\t"'), FINE, "a"),
    ("y blanks of all kinds", b' \t{"custom_id" :\t"a" , "prompt": "x" }\r', FINE, "a"),
    ("y nested 127 within", member(b'"m": ' + b"[" * 127 + b"]" * 127), FINE, "a"),
    ("y brackets in a text", member(b'"m": "' + b"[{" * 3_000 + b'"'), FINE, "a"),
    ("y brackets and escaped marks in a text", member(b'"m": "' + b'\\"[{' * 3_000 + b'"'), FINE, "a"),
    ("y many short lists", member(b'"m": [' + b"[]," * 3_000 + b"0]"), FINE, "a"),
    ("i integer beyond 64 bits", member(b'"m": 123456789012345678901234567890'), FINE, "a"),
    ("i integer of 5,000 digits", member(b'"m": ' + b"9" * 5_000), FAULT, "a"),
    ("i 1E400", member(b'"m": 1E400'), FAULT, "a"),
    ("i -1E400", member(b'"m": -1E400'), FAULT, "a"),
    ("i lone high surrogate", member(b'"m": "\\ud800"'), FAULT, "a"),
    ("i lone low surrogate", member(b'"m": "\\udc00"'), FAULT, "a"),
    ("i surrogates reversed", member(b'"m": "\\ude39\\ud83d"'), FAULT, "a"),
    ("i lone surrogate in a key", member(b'"\\ud800": 1'), FAULT, "a"),
    ("i lone surrogate in the id", b'{"custom_id": "a\\ud800", "prompt": "x"}', FAULT, None),
    ("i UTF-8 of a surrogate", member(b'"m": "\xed\xa0\x80"'), FAULT, "a"),
    ("i overlong UTF-8", member(b'"m": "\xc0\xaf"'), FAULT, "a"),
    ("i beyond Unicode", member(b'"m": "\xf4\xbf\xbf\xbf"'), FAULT, "a"),
    ("i latin-1", member(b'"m": "\xe9"'), FAULT, "a"),
    ("i not UTF-8 in the id", b'{"custom_id": "a\xe9", "prompt": "x"}', FAULT, None),
    ("i cut UTF-8", member(b'"m": "\xe0\xff"'), FAULT, "a"),
    ("i nested 128 within", member(b'"m": ' + b"[" * 128 + b"]" * 128), FAULT, "a"),
    ("i nested 511 within", member(b'"m": ' + b'{"a":[' * 255 + b"{}" + b"]}" * 255), FAULT, "a"),
    ("i nested 512 within", member(b'"m": ' + b"[" * 512 + b"]" * 512), FAULT, None),
    ("i nested 1,023 within", member(b'"m": ' + b"[" * 1_023 + b"]" * 1_023), FAULT, None),
    ("i nested 100,000 within", member(b'"m": ' + b"[" * 100_000 + b"]" * 100_000), FAULT, None),
    ("n NaN", member(b'"m": NaN'), FAULT, "a"),
    ("n -Infinity", member(b'"m": -Infinity'), FAULT, "a"),
    ("n control character", member(b'"m": "\x1f"'), FAULT, "a"),
    ("n NUL in a text", member(b'"m": "a\x00b"'), FAULT, "a"),
    ("n NUL after it", GOOD + b"\x00", FAULT, None),
    ("n trailing comma", b'{"custom_id": "a", "prompt": "x",}', FAULT, None),
    ("n double comma", b'{"custom_id": "a",, "prompt": "x"}', FAULT, None),
    ("n missing colon", b'{"custom_id" "a"}', FAULT, None),
    ("n single quotes", b"{'custom_id': 'a'}", FAULT, None),
    ("n bare key", b'{custom_id: "a"}', FAULT, None),
    ("n comment", GOOD + b" // why", FAULT, None),
    ("n comment within", b'{"custom_id": "a" /* why */}', FAULT, None),
    ("n two objects", GOOD + GOOD, FAULT, None),
    ("n two objects, a carriage return between", GOOD + b"\r" + GOOD, FAULT, None),
    ("n leading zero", member(b'"m": 01'), FAULT, None),
    ("n plus", member(b'"m": +1'), FAULT, None),
    ("n no digits after the point", member(b'"m": 1.'), FAULT, None),
    ("n hexadecimal", member(b'"m": 0x1'), FAULT, None),
    ("n unknown escape", member(b'"m": "\\x00"'), FAULT, None),
    ("n short escape", member(b'"m": "\\u00A"'), FAULT, None),
    ("n capital true", member(b'"m": True'), FAULT, None),
    ("n unclosed", b'{"custom_id": "a", "prompt": "x"', FAULT, None),
    ("n unclosed text", b'{"custom_id": "a', FAULT, None),
    ("n vertical tab before it", b"\x0b" + GOOD, FAULT, None),
    ("n mark in the middle", b"\xef\xbb\xbf" + GOOD, FAULT, None),
    ("n list", b"[" + GOOD + b"]", FAULT, None),
    ("n text", b'"custom_id"', FAULT, None),
    ("n number", b"1E400", FAULT, None),
    ("n null", b"null", FAULT, None),
    ("id a number", b'{"custom_id": 7, "prompt": "x"}', FAULT, None),
    ("id empty", b'{"custom_id": "", "prompt": "x"}', FAULT, None),
    ("id missing", b'{"prompt": "x"}', FINE, "1"),
    ("id missing in a line that is not JSON", b'{"prompt": NaN}', FAULT, "1"),
    ("empty object", b"{}", FAULT, "1"),
]


def test_there_are_no_two_cases_of_one_name() -> None:
    assert len({name for name, *_ in CASES}) == len(CASES) >= 60


@pytest.mark.parametrize("name, line, accepted, wanted", CASES, ids=[case[0] for case in CASES])
def test_both_readers_agree(name: str, line: bytes, accepted: bool, wanted: str | None, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(GOOD.replace(b"good", b"first") + b"\n" + line + b"\n" + GOOD.replace(b"good", b"last"))
    rows = list(Source(source).rows())
    assert [(row.custom_id, row.error is None) for row in rows] == [
        ("first", True),
        (wanted, accepted),
        ("last", True),
    ]
    assert list(input_ids(source, templated=False)) == ["first", wanted, "last"]
    make_job(source, tmp_path / "out.jsonl").run()
    verdict = verify(source, tmp_path / "out.jsonl")
    assert (verdict.findings, verdict.errors) == ([], 0 if accepted else 1)


def ids_of(path: Path) -> tuple[list[str | None], list[str | None]]:
    """By the reader and by the checker."""
    try:
        read = [row.custom_id for row in Source(path).rows()]
    except EmptyInput:
        read = []
    return read, list(input_ids(path, templated=False))


@pytest.mark.parametrize(
    "first",
    [b"{}", b'{"body": NaN}', b"[1]", b'{"body": 1, "url": "/v1/completions"}', b'{"method": "\xff"}', b'{"body": 0}'],
)
@pytest.mark.parametrize("second", [b'{"prompt": "x"}', b'{"url": "/v1/completions"}', b'{"x": 1}'])
def test_they_agree_on_what_is_an_openai_file(first: bytes, second: bytes, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\n".join([first, second, b'{"messages": 7}', b'{"custom_id": "a"}']))
    read, counted = ids_of(path)
    assert read == counted


PIECES = [b'"', b'""', b",", b"\n", b"\r\n", b"\r", b"a", b"b c", b" ", b"\x00", b"\xe9", b"\xc3\xa9", BOM]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=24), st.booleans())
def test_they_agree_on_the_rows_of_any_csv(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], packed: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    data = b"custom_id,prompt\n" + b"".join(pieces)
    path.write_bytes(gzip.compress(data) if packed else data)
    read, counted = ids_of(path)
    assert read == counted


LINES = [GOOD, b"{", b"", b" ", b"\r", b'{"prompt": 1}', b'{"prompt": "' + b"y" * 300 + b'"}', b"\xff", b"\x00"]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(LINES), min_size=1, max_size=30),
    st.integers(0, 400),
    st.integers(1, 255),
    st.sampled_from(["flip", "cut", "none", "more", "zeros", "members"]),
)
def test_they_agree_on_the_rows_of_any_gzip_file(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], at: int, by: int, how: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl.gz"
    data = bytearray(gzip.compress(b"\n".join(lines)))
    if how == "members":
        data += gzip.compress(b"\n" + GOOD)
    at %= len(data)
    if how == "flip":
        data[at] ^= by
    ends = {"cut": data[: max(at, 2)], "more": data + b"more", "zeros": data + b"\0" * 9}
    path.write_bytes(bytes(ends.get(how, data)))
    try:
        read, counted = ids_of(path)
    except InputError as error:  # nothing can be read, or it begins as another kind of file does
        assert how in ("flip", "cut", "more") or "UTF-16" in str(error)
        return
    assert read == counted
    if how in ("none", "zeros", "members"):
        whole = gzip.decompress(path.read_bytes())
        assert len(read) == sum(bool(line.strip()) for line in whole.split(b"\n"))


@pytest.mark.nightly
def test_a_line_of_the_most_bytes_is_a_row_for_both(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    begin, end = b'{"custom_id": "a", "prompt": "', b'"}'
    for spare, wanted in ((0, "a"), (1, None)):
        line = begin + b"x" * (16 * 2**20 - len(begin) - len(end) + spare) + end
        path.write_bytes(line + b"\n" + GOOD + b"\n" + line.replace(b'"a"', b'"b"'))
        read, counted = ids_of(path)
        assert read == counted == [wanted, "good", wanted and "b"]


def test_the_output_of_a_damaged_file_is_sound(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl.gz"
    rows = [json.dumps({"custom_id": f"r{i}", "prompt": f"text {i}"}).encode() for i in range(500)]
    source.write_bytes(gzip.compress(b"\n".join(rows))[:-700])
    summary = make_job(source, tmp_path / "out.jsonl").run()
    assert (summary.exit_code, summary.failed) == (3, 1)
    assert 100 < summary.ok < 500
    verdict = verify(source, tmp_path / "out.jsonl")
    assert (verdict.exit_code, verdict.codes) == (3, {"damaged_input": 1})
