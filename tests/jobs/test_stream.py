"""Streams: rows are answered as they come, in memory of a bounded size, with the bytes of a job."""

from __future__ import annotations

import io
import json
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.fakes import CONTEXT, WIDTH, FakeEngine, FakeTokenizer, write_rows
from tests.jobs.test_windows import some_rows
from umbel.engine.request_output import RequestOutput
from umbel.engine.tickets import SessionEvent
from umbel.errors import EmptyInput, InputError
from umbel.ir.workload import Workload
from umbel.jobs import stream as stream_module
from umbel.jobs.read.coming import ComingRows
from umbel.jobs.read.piped import PipedRows, comes_by_line
from umbel.jobs.read.prepare import WindowBuilder
from umbel.jobs.read.records import InputRow, ReadOptions
from umbel.jobs.stream import Stream
from umbel.jobs.write.answers import Renderer
from umbel.jobs.write.openai_answers import Issuer

ISSUER = Issuer("0", "fake", 1_700_000_000, "fp")
OPTIONS = ReadOptions(width=WIDTH, models=frozenset({"fake"}))


class FakeSession:
    """Answers what came together backwards, as soon as it is iterated."""

    def __init__(self) -> None:
        self.count, self._events = 0, deque[SessionEvent]()
        self._changed, self._closed = threading.Condition(), False

    def __enter__(self) -> FakeSession:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def add(self, prompts: Workload) -> list[int]:
        tickets = list(range(self.count, self.count + len(prompts)))
        self.count += len(prompts)
        outputs = FakeEngine().execute(prompts)
        with self._changed:
            for output in outputs:
                ids, ticket = prompts.prompt(output.row).tolist(), tickets[output.row]
                self._events.append(
                    SessionEvent(ticket, "finished", output=RequestOutput.of(0, None, ids, output, None))
                )
            self._changed.notify_all()
        return tickets

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[SessionEvent]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._events or self._closed)
                if not self._events:
                    return
                event = self._events.popleft()
            yield event


def streamed(rows: Iterator[InputRow], *, in_order: bool = True, ahead: int = 64, put: Any = None) -> bytes:
    """What a stream of these rows writes."""
    found = io.BytesIO()
    renderer, builder = Renderer(ISSUER, FakeTokenizer().token_bytes), WindowBuilder(FakeTokenizer(), WIDTH, CONTEXT)
    Stream(FakeSession, ComingRows(rows, ahead), builder, renderer, put or found.write, in_order).run()
    return found.getvalue()


def piped(data: bytes) -> Iterator[InputRow]:
    return PipedRows(io.BufferedReader(io.BytesIO(data)), "-", OPTIONS).rows()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    scored = {"custom_id": "s", "prompt": "good or bad? ", "choices": ["good", "bad"]}
    return write_rows(tmp_path / "in.jsonl", [*some_rows(150), scored, {"prompt": "x", "continuations": ["a", "bc"]}])


@pytest.mark.parametrize("ahead", [1, 7, 4_096])
def test_the_bytes_of_a_job(source: Path, expected: bytes, ahead: int) -> None:
    assert streamed(piped(source.read_bytes()), ahead=ahead) == expected


def test_the_bytes_of_a_job_in_several_sessions(source: Path, expected: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "SESSION_ROWS", 20)
    monkeypatch.setattr(stream_module, "BATCH_ROWS", 8)
    assert streamed(piped(source.read_bytes())) == expected


def test_rows_as_they_finish(source: Path, expected: bytes) -> None:
    found = streamed(piped(source.read_bytes()), in_order=False)
    assert found != expected and sorted(found.splitlines()) == sorted(expected.splitlines())


def test_no_more_rows_are_read_than_have_room(source: Path) -> None:
    read = written = most = 0

    def counted() -> Iterator[InputRow]:
        nonlocal read
        for row in piped(source.read_bytes()):
            read += 1
            yield row

    def put(lines: bytes) -> None:
        nonlocal written, most
        most = max(most, read - written)
        written += lines.count(b"\n")

    streamed(counted(), ahead=10, put=put)
    assert (read, written) == (152, 152) and most <= 11  # one waits for room


def test_what_came_before_an_error_is_answered(source: Path, expected: bytes) -> None:
    def broken() -> Iterator[InputRow]:
        yield from list(piped(source.read_bytes()))[:40]
        raise InputError("gone")

    found: list[bytes] = []
    with pytest.raises(InputError, match="gone"):
        streamed(broken(), put=found.append)
    assert b"".join(found).splitlines() == expected.splitlines()[:40]


def test_a_reader_that_leaves_ends_it(source: Path) -> None:
    def put(lines: bytes) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        streamed(piped(source.read_bytes()), put=put)


def test_the_first_object_shows_the_dialect() -> None:
    plain, openai = (
        b'{"prompt":"x"}\n',
        b'{"custom_id":"a","method":"POST","url":"/v1/completions","body":{"prompt":"x"}}\n',
    )
    assert [json.loads(line)["text"] for line in streamed(piped(b"\xef\xbb\xbf\n" + plain)).splitlines()]
    (line,) = streamed(piped(openai)).splitlines()
    assert json.loads(line)["response"]["body"]["object"] == "text_completion"
    broken, answer = streamed(piped(b"{broken\n" + openai)).splitlines()
    assert json.loads(broken)["response"]["status_code"] == 400 and json.loads(answer)["custom_id"] == "a"


@pytest.mark.parametrize(
    "data, error, says",
    [(b"", EmptyInput, "- has no rows"), (b"\n \n", EmptyInput, "rows"), (b"%PDF-1", InputError, "PDF")],
)
def test_inputs_without_rows(data: bytes, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        streamed(piped(data))


@pytest.mark.parametrize(
    "data, by_line",
    [(b"{", True), (b"x", True), (b"\xef\xbb\xbf [", False), (b"PAR1", False), (b"\x1f\x8b\x08", False)],
)
def test_what_cannot_be_read_by_line(data: bytes, by_line: bool) -> None:
    assert comes_by_line(io.BufferedReader(io.BytesIO(data))) == by_line
