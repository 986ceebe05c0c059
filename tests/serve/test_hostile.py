"""Clients by the hundred that hang up, do not read, do not send, or send nonsense, and more requests than there is room
for: others get their answers, and nothing is left behind. Few of each here, a thousand by night."""

from __future__ import annotations

import asyncio
import json
import random
import resource
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pytest

from tests.serve.conftest import listening
from umbel.api import LLM
from umbel.ir.params import SamplingParams
from umbel.runner.fake import FakeRunner
from umbel.serve.settings import ServeLimits

URL = "/v1/completions"
TOKENS = 12
GREEDY = SamplingParams(max_tokens=TOKENS, ignore_eos=True, temperature=0)


def many(few: int, night: int) -> pytest.MarkDecorator:
    counts = [pytest.param(few, marks=pytest.mark.slow), pytest.param(night, marks=pytest.mark.nightly)]
    return pytest.mark.parametrize("count", counts)


@pytest.fixture
def llm(directory: object) -> Iterator[LLM]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16_384), hard))
    with LLM(str(directory), runner=FakeRunner(n_pages=6_000, page_size=16, vocab_size=500)) as found:
        yield found
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def prompt(i: int) -> list[int]:
    return [5, 6, 7 + i // 250, 7 + i % 250]


def request_of(i: int, **more: Any) -> bytes:
    """A request for the answer to prompt number i, as it goes over a socket."""
    body = {"prompt": prompt(i), "max_tokens": TOKENS, "ignore_eos": True, "temperature": 0} | more
    data = json.dumps(body).encode()
    head = f"POST {URL} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\n"
    return head.encode() + f"Content-Length: {len(data)}\r\n\r\n".encode() + data


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection, which is dropped at the end."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def exchanged(url: str, data: bytes) -> tuple[int, bytes]:
    """The status and the rest of what a server says to some bytes."""
    async with opened(url) as (reader, writer):
        writer.write(data)
        head, _, rest = (await reader.read(-1)).partition(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]), rest


async def answer(url: str, i: int) -> str:
    status, data = await exchanged(url, request_of(i))
    assert status == 200, data
    return str(json.loads(data)["choices"][0]["text"])


async def all_of(*work: Any) -> list[Any]:
    return list(await asyncio.gather(*work))


def expected(llm: LLM, count: int) -> list[str]:
    outputs = llm.generate([prompt(i) for i in range(count)], GREEDY, use_tqdm=False)
    return [one.outputs[0].text for one in outputs]


def settle(llm: LLM, url: str) -> None:
    """Wait until no sample runs, and hold the books: every page is free, or held by what is done."""
    while llm.engine.loops and llm.engine.loops[0].scheduler.seqs.n_running:
        httpx.get(url + "/health")
    for loop in llm.engine.loops:
        scheduler = loop.scheduler
        assert scheduler.pool.used == scheduler.kv.idle.pages
    assert httpx.get(url + "/health").status_code == 200


@many(36, 1_000)
def test_clients_that_hang_up_leave_nothing_and_change_no_answer(llm: LLM, count: int) -> None:
    """In six moments: before a head, in a body, while they wait, before the first token, in a stream, before an answer
    that is not a stream."""
    wanted = expected(llm, 20)

    async def hung_up(url: str, i: int) -> None:
        data, kind = request_of(i, max_tokens=1_000, stream=i % 6 != 5, n=1 + i % 3), i % 6
        async with opened(url) as (reader, writer):
            writer.write(data[: (10, len(data) - 5)[kind]] if kind < 2 else data)
            await writer.drain()
            if kind == 3:
                await asyncio.sleep(0)
            if kind == 4:
                await reader.readuntil(b"data: ")
            while kind == 5 and not llm.engine.loops[0].scheduler.seqs.n_running:
                await asyncio.sleep(0.001)

    with listening(llm) as url:
        asyncio.run(all_of(answer(url, 0)))
        gone = [hung_up(url, i) for i in range(count)]
        found = asyncio.run(all_of(*[answer(url, i) for i in range(20)], *gone))
        assert found[:20] == wanted
        settle(llm, url)


@many(20, 300)
def test_readers_that_do_not_read_hold_nobody_up(llm: LLM, count: int) -> None:
    """A fifth of the streams is not read at all. The others come to their end, and those are ended."""
    wanted = expected(llm, count)

    async def unread(url: str, over: asyncio.Event) -> None:
        async with opened(url) as (_, writer):
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(request_of(0, stream=True, max_tokens=1_200, n=16))
            await over.wait()

    async def play(url: str) -> list[str]:
        over = asyncio.Event()
        slow = [asyncio.ensure_future(unread(url, over)) for _ in range(count // 5)]
        found = await all_of(*[answer(url, i) for i in range(count - count // 5)])
        while llm.engine.loops[0].scheduler.seqs.n_running:  # they are ended, though they stay
            await asyncio.sleep(0.01)
        over.set()
        await all_of(*slow)
        return found

    with listening(llm, limits=ServeLimits(send_seconds=0.5, rows=20_000)) as url:
        assert asyncio.run(play(url)) == wanted[: count - count // 5]
        settle(llm, url)


@many(20, 500)
def test_senders_that_do_not_send_hold_nobody_up(llm: LLM, count: int) -> None:
    """Each sends a byte now and then, of a head or of a body, and is ended; others are answered meanwhile."""

    async def slow(url: str, i: int) -> bytes:
        async with opened(url) as (reader, writer):
            data = request_of(i)
            writer.write(data[:20] if i % 2 else data[:-20])
            ended = asyncio.ensure_future(reader.read(-1))
            while not ended.done():
                writer.write(b"x" if i % 2 else b" ")
                await asyncio.wait([ended], timeout=0.2)
            with suppress(ConnectionError):
                return ended.result()
        return b""

    with listening(llm, limits=ServeLimits(header_seconds=1.0, body_seconds=1.0)) as url:
        wanted = expected(llm, 10)
        work = [slow(url, i) for i in range(count)]
        *said, found = asyncio.run(all_of(*work, all_of(*[answer(url, i) for i in range(10)])))
        assert found == wanted
        assert all(one == b"" or one.startswith(b"HTTP/1.1 408") for one in said)
        settle(llm, url)


WORDS = [b"\r\n", b"\x00", b"\r\n\r\n", b"Transfer-Encoding: chunked\r\n", b"[" * 500, b"Expect: 100-continue\r\n"]


def mangled(random_: random.Random, data: bytes) -> bytes:
    """A request with a few bytes changed, taken out, put in or repeated."""
    found = bytearray(data)
    for _ in range(random_.randint(1, 6)):
        at = random_.randrange(len(found))
        act = random_.randrange(5)
        if act == 0:
            found[at] = random_.randrange(256)
        elif act == 1:
            del found[at : at + random_.randint(1, 40)]
        elif act == 2:
            found[at:at] = random_.randbytes(random_.randint(1, 40))
        elif act == 3:
            found[at:at] = found[max(0, at - 60) : at]
        else:
            found[at:at] = random_.choice(WORDS)
        if not found:
            return b"\r\n"
    return bytes(found)


@many(200, 20_000)
def test_bytes_that_are_hardly_requests_break_nothing(llm: LLM, count: int) -> None:
    """Every one gets an answer below 500, or the end of its connection."""
    random_ = random.Random(count)

    async def sent(url: str, data: bytes) -> int:
        async with opened(url) as (reader, writer):
            writer.write(data)
            with suppress(OSError):  # the server has ended the connection
                writer.write_eof()
                head = await reader.read(-1)
                return int(head.split(b" ", 2)[1]) if head.startswith(b"HTTP/1.1 ") else 0
        return 0

    async def play(url: str) -> list[int]:
        found = list[int]()
        for _ in range(0, count, 50):
            found += await all_of(*[sent(url, mangled(random_, request_of(random_.randrange(20)))) for _ in range(50)])
        return found

    with listening(llm, limits=ServeLimits(header_seconds=1.0, body_seconds=1.0)) as url:
        statuses = asyncio.run(play(url))
        assert max(statuses) < 500, Counter(statuses)
        assert 400 in statuses
        assert asyncio.run(answer(url, 3)) == expected_of(llm, url, 3)
        settle(llm, url)


def expected_of(llm: LLM, url: str, i: int) -> str:
    found = httpx.post(url + URL, json=json.loads(request_of(i).partition(b"\r\n\r\n")[2]))
    return str(found.json()["choices"][0]["text"])


@many(8, 100)
def test_ten_times_too_many_requests_are_sent_away_by_name(llm: LLM, count: int) -> None:
    """Those that are let in get their answers, and the others when they come again."""
    wanted = expected(llm, 10 * count)

    async def asked(url: str, i: int) -> tuple[int, str]:
        status, data = await exchanged(url, request_of(i))
        refused = 0
        while status == 429:
            assert json.loads(data)["error"]["code"] == "rate_limit_exceeded"
            refused += 1
            await asyncio.sleep(0.01)
            status, data = await exchanged(url, request_of(i))
        assert status == 200, data
        return refused, json.loads(data)["choices"][0]["text"]

    with listening(llm, limits=ServeLimits(rows=count)) as url:
        found = asyncio.run(all_of(*[asked(url, i) for i in range(10 * count)]))
        assert [text for _, text in found] == wanted
        assert sum(refused for refused, _ in found) > 0
        settle(llm, url)
