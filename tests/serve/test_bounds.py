"""Bounds of docs/serve_bounds.md that no other test holds: what is left behind many requests, and lists of ranges."""

from __future__ import annotations

import gc
import os
import random
import socket
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.parameters import by_night
from tests.sched.drive import Zeros
from tests.serve.conftest import listening
from umbel.api import LLM
from umbel.engine.session import Session
from umbel.ir.params import SamplingParams

ROUND = 100  # requests of a round


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def round_of(session: Session, rng: random.Random) -> None:
    """Requests come while others run; three in ten are cancelled, whatever state they are in."""
    open_, left = set[int](), ROUND
    while left or open_:
        count = min(left, rng.randrange(1, 8))
        left -= count
        prompts = [[rng.randrange(4), *([7] * rng.randrange(40)), rng.randrange(300)] for _ in range(count)]
        if count:
            params = SamplingParams(temperature=0.0, max_tokens=rng.randrange(1, 12), ignore_eos=True)
            tickets = session.add(prompts, params, stream=True, priority=rng.randrange(2))
            for ticket in tickets:
                if rng.random() < 0.3 and rng.random() < 0.5:
                    session.cancel(ticket)  # before it has started
                else:
                    open_.add(ticket)
        for _ in range(rng.randrange(30)):
            if not open_:
                break
            event = next(session)
            if event.kind == "finished":
                open_.discard(event.ticket)
            elif rng.random() < 0.05 and event.ticket in open_:
                session.cancel(event.ticket)
                open_.discard(event.ticket)


@pytest.mark.parametrize("count", by_night([100], [10_000]))
def test_many_requests_leave_nothing_behind(count: int) -> None:
    """Pages, users, threads and descriptors are as before; memory does not grow with requests that are over."""
    rng = random.Random(0)
    with LLM("demo", runner=Zeros(), kv_tokens=4_800) as llm, llm.session() as session:
        round_of(session, rng)
        gc.collect()
        before = threading.active_count(), descriptors()
        began = resident()
        for _ in range(count // ROUND):
            round_of(session, rng)
        gc.collect()
        assert (threading.active_count(), descriptors()) == before
        scheduler = session.look(lambda loop: loop.scheduler)
        assert scheduler.kv.make_room(scheduler.pool.n_pages), "what is kept can all be had back"
        assert scheduler.pool.free == scheduler.pool.n_pages and not any(scheduler.kv.users)
        assert not scheduler.seqs.slot_of and not session._row_of and not session._tickets.live
        assert resident() - began < 24 * 2**20
        session.close()


@pytest.mark.parametrize("count", [2, 10_000])
def test_ranges_of_a_file_cost_no_more_than_the_file(llm: LLM, tmp_path: Path, count: int) -> None:
    """A list of thousands of ranges is answered at once, with no more bytes than the file has."""
    data = b'{"custom_id": "a"}\n' * 4_000
    with listening(llm, store=tmp_path) as url, httpx.Client(base_url=url) as client:
        sent = client.post("/v1/files", files={"file": ("a.jsonl", data)}, data={"purpose": "batch"}).json()
        ranges = ",".join(f"{2 * (i % 4)}-{2 * (i % 4)}" for i in range(count))
        began = time.perf_counter()
        found = client.get(f"/v1/files/{sent['id']}/content", headers={"range": f"bytes={ranges}"})
        assert time.perf_counter() - began < 5
        assert found.status_code in (200, 206, 416) and len(found.content) <= len(data)


def test_no_request_makes_the_server_connect_to_anything(
    llm: LLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever addresses are in its body."""
    connect, places = socket.socket.connect, set[object]()

    def noted(self: socket.socket, place: object) -> None:
        places.add(place)
        connect(self, place)  # type: ignore[arg-type]

    far = "http://192.0.2.1/a.png"  # an address of documentations, where no one is
    parts = [{"type": kind, kind: {"url": far}} for kind in ("image_url", "audio_url", "video_url", "input_file")]
    bodies: list[dict[str, object]] = [{"messages": [{"role": "user", "content": [part]}]} for part in parts]
    bodies += [
        {"messages": [{"role": "user", "content": far}], "model": far},
        {"messages": far, "response_format": far},
    ]
    monkeypatch.setattr(socket.socket, "connect", noted)
    with listening(llm, store=tmp_path) as url, httpx.Client(base_url=url) as client:
        for body in bodies:
            assert client.post("/v1/chat/completions", json=body).status_code in (400, 404)
        assert client.post("/v1/files", json={"file": far, "purpose": "batch"}).status_code in (400, 415)
        assert client.post("/v1/batches", json={"input_file_id": far, "endpoint": far}).status_code in (400, 404)
        host, port = url.removeprefix("http://").split(":")
    assert places == {(host, int(port))}
