"""The dashboard: what it shows, live, with and without a key; and the page that sends a prompt."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest

from tests.serve.conftest import listening
from tests.serve.test_batch_ends import FIRST, Gate, held
from tests.serve.test_batches import client_of, ended, made, texts
from umbel.api import LLM
from umbel.ir.report import Stats
from umbel.serve.batches.limits import StoreLimits
from umbel.serve.dashboard.engine_view import EngineView
from umbel.serve.dashboard.pages import PageWriter
from umbel.serve.dashboard.recent import RecentSamples
from umbel.serve.pace import Pace
from umbel.serve.settings import ServeLimits

VOID = {"meta", "link", "input", "br", "rect"}


class Balanced(HTMLParser):
    """Reads a page; each tag must be closed by its own, and nothing may be loaded from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID | {"option"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def checked(page: str) -> str:
    """The words of a page that stands by itself."""
    reader = Balanced()
    reader.feed(page)
    assert not reader.open and all(link.startswith(("/", "data:")) for link in reader.links)
    return " ".join(re.sub(r"<(style|script).*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL).split())


def test_it_shows_batches_and_what_the_engine_does(llm: LLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("umbel.jobs.store.GROUP_ROWS", 1)
    gate = Gate(monkeypatch)
    limits = ServeLimits(store=StoreLimits(running_batches=1))
    with (
        listening(llm, store=tmp_path, limits=limits) as url,
        client_of(url) as client,
        httpx.Client(base_url=url) as http,
    ):
        assert "None yet" in checked(http.get("/").text)
        batch = made(client, texts(8), metadata={"name": "<b>nightly</b>"})
        held(client, batch)
        waiting = made(client, texts(1))
        page = http.get("/")
        words = checked(page.text)
        assert page.headers["content-security-policy"].startswith("default-src 'none'")
        assert f"{batch.id} /v1/completions, &lt;b&gt;nightly&lt;/b&gt; in progress" in words
        assert f"{FIRST} / 8" in words and "waits for" in words
        gate.opened.set()
        assert ended(client, batch).status == ended(client, waiting).status == "completed"
        assert f"{batch.id} /v1/completions, &lt;b&gt;nightly&lt;/b&gt; completed 8 / 8" in checked(http.get("/").text)
        with http.stream("GET", "/live") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            first = next(line for line in stream.iter_lines() if line)
        assert "8 / 8" in checked(json.loads(first.removeprefix("data: ")))


def test_waits_of_streams_are_shown_beside_their_targets() -> None:
    now, pace, waits = [0.0], Pace(), dict[tuple[int, int], float]()
    pace.clock = lambda: now[0]
    for moment in (2.0, 3.0, 3.5, 7.5):
        now[0] = moment
        pace.note(waits, 0.5, (0, 0))
    between = [(50, 1.0), (90, 4.0), (99, 4.0)]
    assert pace.percentiles() == {"first": [(50, 1.5), (90, 1.5), (99, 1.5)], "between": between}
    recent = RecentSamples(Stats, pace, clock=lambda: now[0])
    recent.take(EngineView(running=5, beneath=3))
    assert recent.last.wait == 4.0
    words = checked(PageWriter(("tiny",), 0.2, None).live(recent, pace, 0, None))
    assert "of batches" in words and "Waits between tokens" in words
    assert "to the first token (TTFT) 1.5 s 1.5 s 1.5 s 0.2 s" in words
    assert "between tokens (TBT) 1 s 4 s 4 s none" in words and "keeps none: start it with --store" in words


def test_the_page_that_sends_a_prompt(client: httpx.Client) -> None:
    assert "Most tokens" in checked(client.get("/prompt").text)


def test_a_key_is_asked_for(llm: LLM) -> None:
    with listening(llm, keys=("secret",)) as url, httpx.Client(base_url=url) as http:
        asked = http.get("/", headers={"Accept": "text/html"})
        assert asked.status_code == 401 and "API key" in checked(asked.text)
        assert http.get("/live").status_code == 401 and "error" in http.get("/", headers={"Accept": "*/*"}).json()
        http.cookies.set("umbel_key", "wrong")
        assert http.get("/", headers={"Accept": "text/html"}).status_code == 401
        http.cookies.set("umbel_key", "secret")
        assert "Running samples" in checked(http.get("/").text)
