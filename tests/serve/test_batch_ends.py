"""How batches end early, and go on in the next server: cancelled, expired, stopped; files in use, keys, limits."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.held import wait_until
from tests.serve.conftest import listening
from tests.serve.test_batches import TEXT, client_of, ended, lines, made, packed, texts, timeless
from umbel.api import LLM
from umbel.serve.batches import shared_engine
from umbel.serve.batches.limits import StoreLimits
from umbel.serve.batches.shared_engine import SharedEngine
from umbel.serve.settings import ServeLimits

FIRST = 3  # rows that run before a batch stands still


class Gate:
    """Lets a batch hand out its first rows, and no more until it is opened."""

    def __init__(self, patch: pytest.MonkeyPatch):
        self.opened, feed = threading.Event(), SharedEngine._feed

        def held(engine: SharedEngine) -> None:
            if self.opened.is_set() or not engine._boxes:
                feed(engine)

        patch.setattr(shared_engine, "ROWS", FIRST)
        patch.setattr(shared_engine, "LOOK_SECONDS", 0.01)
        patch.setattr(SharedEngine, "_feed", held)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    monkeypatch.setattr("umbel.jobs.store.GROUP_ROWS", 1)
    return Gate(monkeypatch)


def held(client: openai.OpenAI, batch: Any, done: int = FIRST) -> None:
    wait_until(lambda: client.batches.retrieve(batch.id).request_counts.completed >= done)


def test_a_cancelled_batch_has_what_was_done(llm: LLM, tmp_path: Path, gate: Gate) -> None:
    with listening(llm, store=tmp_path) as url, client_of(url) as client:
        batch = made(client, texts(10))
        held(client, batch)
        with pytest.raises(openai.ConflictError, match="in use"):
            client.files.delete(batch.input_file_id)
        assert client.batches.cancel(batch.id).status == "cancelling"
        done = ended(client, batch)
        assert (done.status, done.request_counts.completed, done.request_counts.failed) == ("cancelled", FIRST, 7)
        assert done.cancelling_at <= done.cancelled_at and client.batches.cancel(batch.id).status == "cancelled"
        answers, others = lines(client, done.output_file_id), lines(client, done.error_file_id)
        assert {one["error"]["code"] for one in others} == {"batch_cancelled"} and len(others) == 7
        assert sorted(one["custom_id"] for one in [*answers, *others]) == sorted(f"row-{i}" for i in range(10))
        assert client.files.delete(batch.input_file_id).deleted
        with pytest.raises(openai.NotFoundError):
            client.files.retrieve(batch.input_file_id)


@pytest.mark.slow
def test_a_batch_expires_with_what_was_done(llm: LLM, tmp_path: Path, gate: Gate) -> None:
    with listening(llm, store=tmp_path) as url, client_of(url) as client:
        done = ended(client, made(client, texts(10), window="2s"))
        assert done.status == "expired" and done.expires_at <= done.expired_at
        codes = [one["error"]["code"] for one in lines(client, done.error_file_id)]
        assert set(codes) == {"batch_expired"} and len(codes) == 10 - done.request_counts.completed


def test_a_batch_says_what_it_waits_for_and_is_cancelled_there(llm: LLM, tmp_path: Path, gate: Gate) -> None:
    limits = ServeLimits(store=StoreLimits(running_batches=1))
    with listening(llm, store=tmp_path, limits=limits) as url, client_of(url) as client:
        first = made(client, texts(6))
        held(client, first)
        second = made(client, texts(4))
        wait_until(lambda: client.batches.retrieve(second.id).status == "in_progress")
        waits = client.batches.retrieve(second.id).waits_for
        assert waits == {"for": "batches", "batch_ids": [first.id]}
        client.batches.cancel(second.id)
        done = ended(client, second)
        assert (done.status, done.output_file_id, done.request_counts.failed) == ("cancelled", None, 4)
        gate.opened.set()
        assert ended(client, first).status == "completed"
        with pytest.raises(openai.ConflictError, match="completed"):
            client.batches.cancel(first.id)


def test_a_batch_does_not_wait_for_a_longer_one(llm: LLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    feed, let = SharedEngine._feed, threading.Event()

    def slowly(engine: SharedEngine) -> None:
        if engine._own.rows_done < FIRST or engine._place > 1 or let.is_set():
            feed(engine)

    monkeypatch.setattr("umbel.jobs.store.GROUP_ROWS", 1)
    monkeypatch.setattr(shared_engine, "ROWS", FIRST)
    monkeypatch.setattr(SharedEngine, "_feed", slowly)
    with listening(llm, store=tmp_path) as url, client_of(url) as client:
        first = made(client, texts(9))
        held(client, first)
        assert ended(client, made(client, texts(5))).request_counts.completed == 5
        assert client.batches.retrieve(first.id).status == "in_progress"
        let.set()
        assert ended(client, first).request_counts.completed == 9


@pytest.mark.slow
def test_the_next_server_goes_on(llm: LLM, tmp_path: Path, gate: Gate) -> None:
    with listening(llm, store=tmp_path / "a") as url, client_of(url) as client:
        batch = made(client, texts(12, tokens=9))
        held(client, batch)
        other = made(client, texts(2))
    assert list((tmp_path / "a").rglob("*.umbel"))
    gate.opened.set()
    with listening(llm, store=tmp_path / "a") as url, client_of(url) as client:
        found = lines(client, ended(client, batch).output_file_id)
        assert ended(client, other).status == "completed"
    with listening(llm, store=tmp_path / "b") as url, client_of(url) as client:
        whole = lines(client, ended(client, made(client, texts(12, tokens=9))).output_file_id)
    assert [timeless(one) for one in found] == [timeless(one) for one in whole]
    assert not list((tmp_path / "a").rglob("*.umbel*"))


def test_each_key_has_its_own(llm: LLM, tmp_path: Path) -> None:
    with listening(llm, store=tmp_path, keys=("one", "two")) as url:
        with client_of(url, key="one") as mine, client_of(url, key="two") as other:
            batch = ended(mine, made(mine, [*texts(2), *bad_rows()]))
            ids = (batch.input_file_id, batch.output_file_id, batch.error_file_id)
            calls = [lambda c, id=id, act=act: act(c)(id) for id in ids for act in OF_FILES]
            calls += [lambda c: c.batches.retrieve(batch.id), lambda c: c.batches.cancel(batch.id)]
            calls.append(lambda c: c.batches.create(input_file_id=ids[0], endpoint=TEXT, completion_window="24h"))
            for call in calls:
                with pytest.raises(openai.NotFoundError):
                    call(other)
            assert not other.files.list().data and not other.batches.list().data
            assert len(mine.files.list().data) == 3
        with client_of(url, key="three") as stranger, pytest.raises(openai.AuthenticationError):
            stranger.batches.list()


OF_FILES = (lambda c: c.files.retrieve, lambda c: c.files.content, lambda c: c.files.delete)


def bad_rows() -> list[dict[str, Any]]:
    return [{"custom_id": "bad", "method": "POST", "url": TEXT, "body": {"prompt": [1], "max_tokens": -1}}]


def test_limits_of_files_and_batches(llm: LLM, tmp_path: Path, gate: Gate) -> None:
    limits = ServeLimits(store=StoreLimits(file_bytes=4_000, rows=5, files=4, live_batches=1))
    with listening(llm, store=tmp_path, limits=limits) as url, client_of(url) as client:
        with pytest.raises(openai.APIStatusError) as large:
            client.files.create(file=("rows.jsonl", b"x" * 4_001), purpose="batch")
        with pytest.raises(openai.BadRequestError) as empty:
            client.files.create(file=("rows.jsonl", b""), purpose="batch")
        with pytest.raises(openai.BadRequestError) as purpose:
            client.files.create(file=("rows.jsonl", b"x"), purpose="evals")
        codes = [(found.value.status_code, found.value.code) for found in (large, empty, purpose)]
        assert codes == [(413, "file_too_large"), (400, "empty_file"), (400, "invalid_value")]
        many = ended(client, made(client, texts(6)))
        assert (many.status, many.errors.data[0].code) == ("failed", "too_many_tasks")
        running = made(client, texts(5))
        with pytest.raises(openai.RateLimitError, match="not done yet"):
            client.batches.create(input_file_id=running.input_file_id, endpoint=TEXT, completion_window="24h")
        gate.opened.set()
        ended(client, running)
        client.files.create(file=("rows.jsonl", packed(texts(1))), purpose="batch")
        with pytest.raises(openai.RateLimitError, match="delete some"):
            client.files.create(file=("rows.jsonl", packed(texts(1))), purpose="batch")
    assert not list(tmp_path.rglob("*.part")) and len(list((tmp_path / "files").iterdir())) == 3


def test_two_servers_do_not_share_a_store(llm: LLM, tmp_path: Path) -> None:
    from umbel.errors import UsageError
    from umbel.serve.batches.desk import Desk
    from umbel.serve.batches.folder import StoreFolder

    first = Desk.open(StoreFolder(tmp_path), StoreLimits())
    with pytest.raises(UsageError, match="another server uses it"):
        Desk.open(StoreFolder(tmp_path), StoreLimits())
    first.close()
    Desk.open(StoreFolder(tmp_path), StoreLimits()).close()


def test_files_go_when_their_time_is_over(tmp_path: Path) -> None:
    import io

    from umbel.errors import InvalidRequest
    from umbel.serve.batches.desk import Asker, Desk
    from umbel.serve.batches.folder import StoreFolder

    now = [1_000.0]
    desk = Desk.open(StoreFolder(tmp_path), StoreLimits())
    desk.clock = lambda: now[0]
    asker = Asker("me")
    kept = desk.upload(asker, "a", "batch", io.BytesIO(json.dumps({}).encode()), None)
    lost = desk.upload(asker, "../b", "batch", io.BytesIO(b"{}"), 3_600)
    assert lost.filename == "b" and lost.expires_at == 4_600
    now[0] = 4_600.0
    with pytest.raises(InvalidRequest):
        desk.file(asker, lost.id)
    desk.drop_expired()
    assert [one.name for one in (tmp_path / "files").iterdir()] == [f"{kept.id}.jsonl"]
    desk.close()
