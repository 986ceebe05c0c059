"""What a server was asked to be, and its limits: frozen records that every part of it reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from umbel.config import EngineConfig
from umbel.errors import UsageError
from umbel.ir.chat import PLAIN_CHAT, ChatOptions
from umbel.serve.batches.limits import StoreLimits

MIB = 2**20


@dataclass(frozen=True, slots=True)
class ServeLimits:
    """What a client may take of the server.

    `body_bytes`: of a request's body (uploads have limits of their own). `rows`: prompts that are asked for and not
    answered yet, of all clients together. `prompts`: of one request. `headers`: how many; `header_bytes`: together.
    `header_seconds`, `body_seconds`: to send them. `send_seconds`: an answer may stand unread so long, beyond the
    buffers of a connection. `drain_seconds`: what runs may go on so long when the server is to stop. `store`: what
    files and batches may be.
    """

    body_bytes: int = 16 * MIB
    rows: int = 4_096
    prompts: int = 2_048
    headers: int = 128
    header_bytes: int = 64 * 1024
    header_seconds: float = 10.0
    body_seconds: float = 60.0
    send_seconds: float = 60.0
    drain_seconds: float = 30.0
    store: StoreLimits = field(default_factory=StoreLimits)


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """What a server was asked to be.

    `config`: the engine's settings. `keys`: those that clients may give; none where any client is served. `names`: what
    the model is called, the first one in answers. `store`: the folder for files and batches; None where there are none.
    `ttft_target`, `tbt_target`: seconds to the first token and between tokens that are aimed at. `calls`, `reasoning`:
    how answers to chats are read; None for what the chat template shows. `strict`: unknown fields are refused.
    """

    config: EngineConfig
    host: str = "127.0.0.1"
    port: int = 8000
    keys: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    store: Path | None = None
    ttft_target: float | None = None
    tbt_target: float | None = None
    calls: str | None = None
    reasoning: str | None = None
    chat_options: ChatOptions = PLAIN_CHAT
    strict: bool = False
    limits: ServeLimits = field(default_factory=ServeLimits)

    def __post_init__(self) -> None:
        if not self.keys and not is_loopback(self.host):
            raise UsageError(
                f"--host {self.host}: other machines could use this server; give --api-key KEY (or UMBEL_API_KEY), or "
                "leave --host out, which serves this machine alone"
            )
        if any(not key.strip() for key in self.keys):
            raise UsageError("--api-key: an empty key lets everyone in; give one that cannot be guessed")
        for name, value in (("--ttft-target", self.ttft_target), ("--tbt-target", self.tbt_target)):
            if value is not None and not value > 0:
                raise UsageError(f"{name} {value}: must be more than 0 seconds")


def is_loopback(host: str) -> bool:
    """Whether an address is that of this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
