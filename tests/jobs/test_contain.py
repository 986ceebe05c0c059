"""A row that breaks a library is that row's error, whatever the library throws; stops and planned failures pass."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.fakes import CONTEXT, FakeTokenizer, make_job, read_rows, write_rows
from umbel.errors import DiskFull, InvalidRequest, ModelError
from umbel.ir.contain import as_refusal, concerns_row
from umbel.ir.limits import check_chars, shown
from umbel.jobs.job import Job
from umbel.jobs.read.formats.parse import RowParser
from umbel.jobs.read.prefetch import Halted
from umbel.jobs.read.prepare import prepare
from umbel.jobs.read.records import RowHead
from umbel.jobs.read.source import Source
from umbel.jobs.signals import Drain, OutOfTime
from umbel.jobs.verify import verify
from umbel.jobs.write.answers import Renderer

ROWS = [{"custom_id": f"r{i}", "prompt": f"good {i}", "max_tokens": 3} for i in range(40)]
BAD = {"custom_id": "bad", "prompt": "poison", "max_tokens": 3}
PLACE = 17

Panic = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})
FAILURES = [
    RecursionError,
    OverflowError,
    MemoryError,
    UnicodeError,
    TypeError,
    AssertionError,
    Panic,
    StopIteration,
]
STOPS = [KeyboardInterrupt, SystemExit, GeneratorExit, Drain, OutOfTime, Halted]


def poisoned(error: type[BaseException]) -> type[FakeTokenizer]:
    """A tokenizer that one text breaks."""

    class Tokenizer(FakeTokenizer):
        def encode(self, texts: Sequence[str]) -> list[list[int]]:
            if any("poison" in text for text in texts):
                raise error("simulated")
            return super().encode(texts)

    return Tokenizer


def job_with_a_bad_row(directory: Path, bad: Any = BAD) -> Job:
    rows: list[Any] = list(ROWS)
    rows.insert(PLACE, bad)
    return make_job(write_rows(directory / "in.jsonl", rows), directory / "out.jsonl")


def expected(directory: Path) -> list[bytes]:
    """The lines of a job that has the row but answers it, without the row."""
    (directory / "clean").mkdir()
    job_with_a_bad_row(directory / "clean", {**BAD, "prompt": "harmless"}).run()
    lines = (directory / "clean" / "out.jsonl").read_bytes().splitlines()
    del lines[PLACE]
    return lines


def check(directory: Path, job: Callable[[], Job]) -> dict[str, Any]:
    """Run, rerun, and hold all but the bad row to what they are without it. Returns the error."""
    assert job().run().exit_code == 3
    assert job().run().status == "already_complete"
    lines = (directory / "out.jsonl").read_bytes().splitlines()
    row = read_rows(directory / "out.jsonl")[PLACE]
    del lines[PLACE]
    assert lines == expected(directory)
    assert verify(directory / "in.jsonl", directory / "out.jsonl").faults == 0
    assert row["custom_id"] == "bad"
    error: dict[str, Any] = row["error"]
    return error


@pytest.mark.parametrize("failure", FAILURES, ids=lambda kind: kind.__name__)
def test_tokenising(failure: type[BaseException], tmp_path: Path) -> None:
    def job() -> Job:
        made = job_with_a_bad_row(tmp_path)
        made.load_tokenizer = lambda now: poisoned(failure)()
        return made

    error = check(tmp_path, job)
    assert (error["code"], error["type"]) == ("internal_error", "server_error")
    assert failure.__name__ in error["message"] and "tokenising" in error["message"]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda kind: kind.__name__)
def test_reading(failure: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = RowParser._plain_request

    def breaks(self: RowParser, item: Any) -> Any:
        if item["prompt"] == "poison":
            raise failure("simulated")
        return real(self, item)

    monkeypatch.setattr(RowParser, "_plain_request", breaks)
    assert check(tmp_path, lambda: job_with_a_bad_row(tmp_path))["code"] == "internal_error"


@pytest.mark.parametrize("failure", FAILURES, ids=lambda kind: kind.__name__)
def test_writing_the_answer(failure: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Renderer.answer

    def breaks(self: Renderer, head: RowHead, *rest: Any, **more: Any) -> Any:
        if head.custom_id == "bad" and (tmp_path / "in.jsonl").read_bytes().count(b"poison"):
            raise failure("simulated")
        return real(self, head, *rest, **more)

    monkeypatch.setattr(Renderer, "answer", breaks)
    assert job_with_a_bad_row(tmp_path).run().exit_code == 3
    assert read_rows(tmp_path / "out.jsonl")[PLACE]["error"]["code"] == "internal_error"
    monkeypatch.setattr(Renderer, "answer", real)
    lines = (tmp_path / "out.jsonl").read_bytes().splitlines()
    del lines[PLACE]
    assert lines == expected(tmp_path)


def test_such_a_row_may_be_tried_again(tmp_path: Path) -> None:
    job = job_with_a_bad_row(tmp_path)
    job.load_tokenizer = lambda now: poisoned(MemoryError)()
    job.run()
    rows = [*ROWS[:PLACE], BAD, *ROWS[PLACE:]]
    again = make_job(write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl", retry_failed=True)
    assert again.run().exit_code == 0


@pytest.mark.parametrize("stop", STOPS, ids=lambda kind: kind.__name__)
def test_stops_pass_through(stop: type[BaseException], tmp_path: Path) -> None:
    source = Source(write_rows(tmp_path / "in.jsonl", [*ROWS, BAD]))
    with pytest.raises(stop):
        prepare(source, poisoned(stop)(), 512, CONTEXT)
    assert not concerns_row(stop())


def test_planned_failures_of_the_job_pass_through() -> None:
    assert [concerns_row(kind("x")) for kind in (ModelError, DiskFull)] == [False, False]
    refused = InvalidRequest("code", "text")
    assert concerns_row(refused) and as_refusal(refused, "reading") is refused


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("value", [deep(1_000), {"a": deep(5_000)}, (deep(3_000),), [[["x" * 10_000] * 8] * 8] * 8])
def test_values_are_shown_in_bounded_length_however_deep(value: object) -> None:
    assert len(shown(value)) < 160


def test_lists_in_a_prompt_nested_deep_are_refused_in_python_too() -> None:
    from umbel.ir.prompts import check_prompt

    with pytest.raises(InvalidRequest, match="token ids"):
        check_prompt([deep(1_000)], None)


@pytest.mark.parametrize("name", ["n", "seed", "stop", "custom_id", "prompt", "logit_bias", "model", "messages"])
@pytest.mark.parametrize("depth", [120, 253, 254, 255, 1_000, 1_023, 1_024])
def test_a_field_of_any_depth_is_an_error_of_its_row(name: str, depth: int, tmp_path: Path) -> None:
    line = b'{"%s": %s}' % (name.encode(), b"[" * depth + b"]" * depth)
    rows = list(Source(write_rows(tmp_path / "in.jsonl", [{"prompt": "a"}, line, {"prompt": "b"}])).rows())
    assert [row.error is None for row in rows] == [True, False, True]
    job = make_job(tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert (job.run().failed, verify(tmp_path / "in.jsonl", tmp_path / "out.jsonl").faults) == (1, 0)


def test_a_prompt_far_beyond_the_context_is_not_tokenised(tmp_path: Path) -> None:
    class Counts(FakeTokenizer):
        longest = 0

        def encode(self, texts: Sequence[str]) -> list[list[int]]:
            self.longest = max([self.longest, *map(len, texts)])
            return super().encode(texts)

    blanks = " " * 11_000_000
    chats = [
        {"messages": [{"role": "user", "content": content}]} for content in (blanks, [{"type": "text", "text": blanks}])
    ]
    source = Source(write_rows(tmp_path / "in.jsonl", [{"prompt": blanks}, *chats, {"prompt": "short"}]))
    tokenizer = Counts()
    found = prepare(source, tokenizer, 512, CONTEXT)
    errors = {at.row: at.error for at in found.faults}
    assert {row: error and error.code for row, error in errors.items()} == dict.fromkeys(
        range(3), "context_length_exceeded"
    )
    assert errors[0] and "11,000,000 characters" in errors[0].message
    assert tokenizer.longest == 5


@pytest.mark.parametrize("context", [64, 4_096, 131_072])
def test_a_prompt_of_the_longest_tokens_there_are_is_never_refused_for_its_characters(context: int) -> None:
    check_chars(128 * context, context)


def test_a_stop_during_tokenising_drains_the_job(tmp_path: Path) -> None:
    class Stops(FakeTokenizer):
        def encode(self, texts: Sequence[str]) -> list[list[int]]:
            signal.raise_signal(signal.SIGTERM)
            return super().encode(texts)

    job = job_with_a_bad_row(tmp_path)
    job.load_tokenizer = lambda now: Stops()
    assert job.run().exit_code == 75
