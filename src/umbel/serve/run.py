"""The server as a process: it loads a model, listens, and on SIGTERM or Ctrl-C lets what runs come to its end."""

from __future__ import annotations

import signal
import socket
import sys
from contextlib import suppress
from dataclasses import fields, replace

import uvicorn

from umbel.api import LLM
from umbel.batch.reading import model_names
from umbel.engine.inbox import check_arriving
from umbel.errors import UmbelError
from umbel.models.families import resolve_model
from umbel.serve.app import make_app
from umbel.serve.protocol import PatientProtocol
from umbel.serve.service import Service
from umbel.serve.settings import ServeSettings

SWITCH_SECONDS = 0.001
"""How long the engine's thread may keep Python from the one that talks to clients."""


def run_server(settings: ServeSettings) -> int:
    """Serve until a signal says otherwise; returns the exit code. Raises UsageError, ModelError, and UmbelError where
    the port is taken, before anything is loaded."""
    config = settings.config
    check_arriving(config)
    place = bound(settings.host, settings.port)
    sys.setswitchinterval(SWITCH_SECONDS)
    names = model_names(config.model, resolve_model(config.model), list(settings.names))
    options = {one.name: getattr(config, one.name) for one in fields(config) if one.name != "model"}
    with place, LLM(config.model, **options) as llm:
        return _serve(build_server(Service(llm, replace(settings, names=tuple(names)))), place)


def bound(host: str, port: int) -> socket.socket:
    """A socket of this address, that nothing can connect to yet. Raises UmbelError."""
    # Named as TCP, or asyncio leaves Nagle's algorithm on, which holds small parts back for up to 40 ms.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except OSError as error:
        found.close()
        raise UmbelError(f"{_shown(host)}:{port}: {error.strerror or error}; --port N takes another one") from None
    return found


class LoudServer(uvicorn.Server):
    """Says where it listens, once it does."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        if self.started:
            port = self.servers[0].sockets[0].getsockname()[1]
            print(f"umbel listens at http://{_shown(self.config.host)}:{port}", file=sys.stderr, flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, and end the streams that have no end of their own."""
        self.config.app.state.service.ends = True  # type: ignore[union-attr]
        await super().shutdown(sockets)


def _serve(server: uvicorn.Server, place: socket.socket) -> int:
    """Run the server in this thread. Signals are its own meanwhile; it raises them again when it has ended, which
    must not end this process by them."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with suppress(KeyboardInterrupt):
            server.run(sockets=[place])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0 if server.started else 1


def build_server(service: Service) -> LoudServer:
    """A server for a service, with the limits of its settings."""
    settings, limits = service.settings, service.settings.limits
    config = uvicorn.Config(
        make_app(service),
        host=settings.host,
        port=settings.port,
        http=type("LimitedProtocol", (PatientProtocol,), {"limits": limits}),
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=limits.header_bytes,
        timeout_graceful_shutdown=int(limits.drain_seconds),
    )
    return LoudServer(config)


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
