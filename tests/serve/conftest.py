"""One tiny random model behind the app, in this process and as a server that listens."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn

from tests.tiny_models import make_model
from umbel.api import LLM
from umbel.config import EngineConfig
from umbel.serve.run import build_server
from umbel.serve.service import Service
from umbel.serve.settings import ServeSettings


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("serve") / "llama", "llama", seed=3)


@pytest.fixture(scope="session")
def llm(directory: Path) -> LLM:
    return LLM(str(directory), dtype="float32", device="cpu", threads=1, chunk=64)


@contextmanager
def listening(llm: LLM, **options: object) -> Iterator[str]:
    """The address of a server for a model, on a thread of its own."""
    options = {"names": ("tiny",), **options}
    settings = ServeSettings(EngineConfig(llm.config.model), port=0, **options)  # type: ignore[arg-type]
    server = build_server(Service(llm, settings))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    while not server.started and thread.is_alive():
        threading.Event().wait(0.01)
    try:
        yield address_of(server)
    finally:
        server.should_exit = True
        thread.join()


def address_of(server: uvicorn.Server) -> str:
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    return f"http://{host}:{port}"


@pytest.fixture(scope="session")
def url(llm: LLM) -> Iterator[str]:
    with listening(llm) as found:
        yield found


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=60) as found:
        yield found
