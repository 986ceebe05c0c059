"""Clients that go away, read slowly or send slowly, engines that fail, and the end of the server."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.serve.conftest import listening
from umbel.api import LLM
from umbel.config import EngineConfig
from umbel.ir.params import SamplingParams
from umbel.ir.step import Step
from umbel.jobs.read.records import RowHead, Style
from umbel.runner.base import Wait
from umbel.runner.fake import FakeRunner
from umbel.serve.errors import ApiError
from umbel.serve.reading import ServedRow, ServedRows
from umbel.serve.service import Service
from umbel.serve.settings import ServeLimits, ServeSettings

LONG = {"prompt": [5, 6, 7], "max_tokens": 1_500, "ignore_eos": True, "temperature": 0}
URL = "/v1/completions"
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"


def until(holds: Callable[[], bool]) -> None:
    while not holds():
        time.sleep(0.005)


class Failing(FakeRunner):
    """Fails so many of the first steps."""

    failures = 0

    def start(self, step: Step) -> Wait:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("secret words of a prompt")
        return super().start(step)


@pytest.fixture
def runner() -> Failing:
    return Failing(n_pages=400, page_size=16, vocab_size=500)


@pytest.fixture
def faked(runner: Failing, directory: object) -> Iterator[LLM]:
    with LLM(str(directory), runner=runner) as llm:
        yield llm


def settings(llm: LLM, **options: Any) -> ServeSettings:
    return ServeSettings(EngineConfig(llm.config.model), names=("tiny",), **options)


@contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as found:
        yield found


def rows(count: int, **params: Any) -> Callable[[], ServedRows]:
    one = ServedRow(RowHead(0, "0", Style.COMPLETION), [5, 6, 7], SamplingParams(**params))
    return lambda: ServedRows([one] * count)


def test_a_row_that_is_left_is_gone_within_two_steps(faked: LLM, runner: Failing) -> None:
    """However it is left: while it waits, in the middle of a stream, or before its answer."""

    async def leave(stream: bool) -> None:
        service = Service(faked, settings(faked))
        await service.start()
        async with service.submit(rows(3, max_tokens=1_500, ignore_eos=True), None, stream=stream) as (_, box):
            while service.load().running == 0:
                await asyncio.sleep(0)
            if stream:
                assert (await anext(box)).token_ids
        before = faked.stats().steps
        while service.load().running:
            await asyncio.sleep(0)
        assert faked.stats().steps - before <= 2
        assert service.live == 0
        await service.close()

    for stream in (True, False):
        asyncio.run(leave(stream))


@pytest.mark.parametrize("at", ["before it is read", "while it is read"])
def test_what_is_left_before_it_is_entered_never_runs(faked: LLM, at: str) -> None:
    go_on, reading = threading.Event(), threading.Event()

    def slowly() -> ServedRows:
        reading.set()
        assert go_on.wait(30)
        return rows(2, max_tokens=1_500, ignore_eos=True)()

    async def leave() -> None:
        service = Service(faked, settings(faked))
        await service.start()
        busy = asyncio.create_task(service.answers(slowly, None))
        await asyncio.to_thread(reading.wait)
        behind = asyncio.create_task(service.answers(rows(1, max_tokens=1_500, ignore_eos=True), None))
        await asyncio.sleep(0.01)
        left = behind if at == "before it is read" else busy
        left.cancel()
        await asyncio.sleep(0.01)
        assert service.live == 0
        go_on.set()
        if left is behind:
            busy.cancel()
        else:
            assert len((await behind)[1]) == 1
        await service.answers(rows(1, max_tokens=2), None)  # the reader has come to the end of both
        assert service.live == 0 and service.load().running == 0
        await service.close()

    asyncio.run(leave())


@pytest.mark.parametrize("stream", [True, False])
def test_the_row_of_a_client_that_hangs_up_stops(faked: LLM, stream: bool) -> None:
    with listening(faked) as url, connected(url) as connection:
        body = httpx.Request("POST", url + URL, json=LONG | {"stream": stream, "n": 4}).content
        head = (
            f"POST {URL} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        connection.sendall(head.encode() + body)
        until(lambda: bool(faked.engine.loops and faked.engine.loops[0].scheduler.seqs.n_running))
        connection.close()
        until(lambda: faked.engine.loops[0].scheduler.seqs.n_running == 0)
        assert faked.stats().rows_done == 0
        found = httpx.post(url + URL, json={"prompt": [5], "max_tokens": 2, "ignore_eos": True})
        assert found.json()["usage"]["completion_tokens"] == 2
        text = httpx.get(url + "/metrics").text
        assert 'umbel:request_abandoned_total{model_name="tiny"} 1.0' in text


def test_a_client_that_does_not_read_is_ended(faked: LLM) -> None:
    limits = ServeLimits(send_seconds=0.3)
    with listening(faked, limits=limits) as url, connected(url) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        body = httpx.Request("POST", url + URL, json=LONG | {"stream": True, "n": 64}).content
        head = (
            f"POST {URL} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        connection.sendall(head.encode() + body)
        until(lambda: bool(faked.engine.loops and faked.engine.loops[0].scheduler.seqs.n_running))
        assert httpx.post(url + URL, json={"prompt": [5], "max_tokens": 2, "ignore_eos": True}).status_code == 200
        until(lambda: faked.engine.loops[0].scheduler.seqs.n_running == 0)


def test_clients_that_do_not_send_are_ended(faked: LLM) -> None:
    limits = ServeLimits(header_seconds=0.2, body_seconds=0.2)
    with listening(faked, limits=limits) as url:
        for sent in (b"", b"POST /v1/comp", b"GET /health HTTP/1.1\r\nHost: a\r\nX-Slow: "):
            with connected(url) as connection:
                connection.sendall(sent)
                with pytest.raises(ConnectionResetError):
                    if connection.recv(1_000) == b"":
                        raise ConnectionResetError
        with connected(url) as connection:
            connection.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
            assert connection.recv(1_000).startswith(b"HTTP/1.1 408")
        with httpx.Client(base_url=url) as client:  # each request of a connection has its time
            for _ in range(3):
                assert client.get("/health").status_code == 200


def test_heads_beyond_limits(url: str) -> None:
    for headers, status in (({"x": "a" * 100_000}, 431), ({f"x-{i}": "a" for i in range(1_000)}, 431)):
        assert httpx.get(url + "/health", headers=headers).status_code == status
    for sent in (b"\x00\x01 nonsense\r\n\r\n", HEAD + b"Transfer-Encoding: gzip\r\n\r\n"):
        with connected(url) as connection:
            connection.sendall(sent)
            assert connection.recv(1_000).startswith(b"HTTP/1.1 400")


def test_the_engine_survives_a_failure(faked: LLM, runner: Failing, caplog: pytest.LogCaptureFixture) -> None:
    with listening(faked) as url, httpx.Client(base_url=url, timeout=60) as client:
        runner.failures = 1
        body = {"prompt": [5, 6], "max_tokens": 3, "ignore_eos": True}
        found = client.post(URL, json=body)
        assert (found.status_code, found.json()["error"]["code"]) == (500, "engine_failed")
        assert client.post(URL, json=body).status_code == 200
        assert client.get("/health").status_code == 200
        runner.failures = 3
        while client.get("/health").status_code == 200:
            assert client.post(URL, json=body).status_code in (500, 503)
        assert client.post(URL, json=body).status_code == 503
    assert "secret" not in caplog.text


def test_too_many_rows_are_sent_away(faked: LLM) -> None:
    async def ask() -> None:
        service = Service(faked, settings(faked, limits=ServeLimits(rows=3)))
        await service.start()
        async with service.submit(rows(2, max_tokens=1_500, ignore_eos=True), None):
            with pytest.raises(ApiError) as refusal:
                async with service.submit(rows(2), None):
                    pass
            assert (refusal.value.status, refusal.value.after) == (429, 1)
            assert len((await service.answers(rows(1, max_tokens=2), None))[1]) == 1
        await service.close()

    asyncio.run(ask())


def test_slow_readers_get_larger_parts(faked: LLM) -> None:
    """What waits for a reader is joined: there are never more parts than answers."""

    async def read() -> None:
        service = Service(faked, settings(faked))
        await service.start()
        async with service.submit(rows(1, max_tokens=300, ignore_eos=True, n=2), None, stream=True) as (_, box):
            while faked.stats().rows_done == 0:
                await asyncio.sleep(0.01)
            news = [one async for one in box]
        assert len(news) == 3 and news[-1].output is not None
        for one, own in zip(news, news[-1].output.outputs, strict=False):
            assert tuple(one.token_ids) == own.token_ids and one.text == own.text
        await service.close()

    asyncio.run(read())
