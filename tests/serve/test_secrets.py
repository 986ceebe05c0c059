"""What takes the right key, and where no text of a client may appear."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from tests.held import wait_until
from tests.serve.conftest import listening
from umbel.api import LLM
from umbel.config import EngineConfig
from umbel.engine.loop import Loop
from umbel.serve.app import make_app
from umbel.serve.auth import OPEN_PATHS
from umbel.serve.service import Service
from umbel.serve.settings import ServeSettings

KEY, PROMPT, CONTENT = "canary-key-5d1f", "canary prompt 77aa", "canary file 90be"


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def routes_of(routes: Iterable[Any]) -> Iterator[tuple[str, str]]:
    """Methods and paths, of routers that were taken in too."""
    for route in routes:
        if isinstance(route, Route):
            yield from ((method, route.path) for method in route.methods or ())
        else:
            yield from routes_of(route.original_router.routes)


def test_every_route_wants_a_key(llm: LLM, tmp_path: Path) -> None:
    """The routes are those of the app, so that none is forgotten."""
    settings = ServeSettings(EngineConfig(llm.config.model), names=("tiny",), keys=(KEY,), store=tmp_path / "a")
    app = make_app(Service(llm, settings))
    routes = set(routes_of(app.routes))
    assert len(routes) > 30 and {path for _, path in routes} >= OPEN_PATHS
    with listening(llm, keys=(KEY,), store=tmp_path / "b") as url, httpx.Client(base_url=url) as client:
        for method, path in sorted(routes):
            for headers in ({}, bearer("wrong")):
                status = client.request(method, path, headers=headers, json={}).status_code
                assert (status == 401) == (path not in OPEN_PATHS), (method, path, status)


def test_texts_and_keys_are_nowhere_but_in_answers(
    llm: LLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: object
) -> None:
    """Not in logs, figures, pages, or what is said of an error that no check foresaw."""
    caplog.set_level(logging.INFO)
    step, failing = Loop.step, [False]

    def broken(loop: Loop) -> object:
        if failing.pop():
            raise RuntimeError(PROMPT)
        failing.append(False)
        return step(loop)

    body = {"prompt": PROMPT, "max_tokens": 3, "ignore_eos": True}
    row = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": body | {"prompt": CONTENT}}
    with (
        listening(llm, keys=(KEY,), store=tmp_path) as url,
        httpx.Client(base_url=url, headers=bearer(KEY), timeout=60) as client,
    ):
        assert client.post("/v1/completions", json=body).status_code == 200
        monkeypatch.setattr(Loop, "step", broken)
        failing[:] = [True]
        said = [client.post("/v1/completions", json=body)]
        assert said[0].status_code == 500
        failing[:] = [False]
        file = client.post("/v1/files", files={"file": json.dumps(row).encode()}, data={"purpose": "batch"}).json()
        asked = {"input_file_id": file["id"], "endpoint": "/v1/completions", "completion_window": "24h"}
        batch = client.post("/v1/batches", json=asked).json()
        wait_until(lambda: client.get(f"/v1/batches/{batch['id']}").json()["status"] == "completed")
        said += [client.post("/v1/completions", json=body | {"prompt": 7.5}, headers=bearer(KEY + "x"))]
        said += [client.get(path) for path in ("/metrics", "/", "/v1/batches", "/v1/files", "/openapi.json")]
    shown = "\n".join([caplog.text, *capfd.readouterr(), *(one.text for one in said)])  # type: ignore[attr-defined]
    assert "engine failed" in caplog.text
    assert [word for word in (KEY, PROMPT, CONTENT) if word in shown] == []
