"""An engine's process: asked in JSON lines, paused while others run, ended with everything it started."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from umbel.errors import UmbelError


class EngineError(UmbelError):
    """An engine could not be started, failed, or took too long; the message says which and where its log is."""


class EngineProcess:
    """A running adapter, in a process group of its own; what it prints goes to `log`."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path):
        self.name, self.log = name, log
        self.paused = False
        with log.open("ab") as errors:
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env=dict(environment),
                    start_new_session=True,
                    bufsize=0,
                )
            except OSError as error:
                raise EngineError(f"{name}: {command[0]} cannot be started ({error.strerror or error})") from None
        self._buffer = b""

    def ask(self, message: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """Send one request and wait for its answer. Raises EngineError on a failure, and ends the process if it is gone
        or late."""
        try:
            _pipe(self._process.stdin).write(json.dumps(message).encode() + b"\n")
            answer: dict[str, Any] = json.loads(self._line(timeout))
        except (OSError, EOFError, ValueError) as error:
            status = self._process.poll()
            self.stop(0.0)
            why = f"took more than {timeout:,.0f} s" if isinstance(error, TimeoutError) else f"ended ({status})"
            raise EngineError(f"{self.name}: {message['do']} {why}; see {self.log}") from None
        if "error" in answer:
            raise EngineError(f"{self.name}: {message['do']}: {answer['error']}; see {self.log}")
        return answer

    def _line(self, timeout: float) -> bytes:
        pipe, deadline = _pipe(self._process.stdout), time.monotonic() + timeout
        with selectors.DefaultSelector() as ready:
            ready.register(pipe, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                if ready.select(left):
                    got = os.read(pipe.fileno(), 1 << 16)
                    if not got:
                        raise EOFError
                    self._buffer += got
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def pause(self) -> None:
        """Stop it and everything it started; its memory stays."""
        if not self.paused and self.alive:
            os.killpg(self._process.pid, signal.SIGSTOP)
            self.paused = True

    def resume(self) -> None:
        """Let it continue."""
        if self.paused:
            os.killpg(self._process.pid, signal.SIGCONT)
            self.paused = False

    def stop(self, grace: float = 10.0) -> None:
        """End it, gently if it responds within `grace` seconds, and the rest of its group."""
        self.resume()
        if self.alive:
            _pipe(self._process.stdin).close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace)
        for pipe in (self._process.stdin, self._process.stdout):
            _pipe(pipe).close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    @property
    def alive(self) -> bool:
        """Whether it still runs (or is paused)."""
        return self._process.poll() is None

    def processor_seconds(self) -> float:
        """Processor time that it has had so far, without what it started; needs /proc."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> tuple[int, int]:
        """Bytes that its group holds now, and the sum of its processes' peaks; zeros where there is no /proc."""
        now, peak = 0, 0
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if int((entry / "stat").read_text().rpartition(")")[2].split()[2]) != self._process.pid:
                    continue
                status = dict(line.split(":", 1) for line in (entry / "status").read_text().splitlines())
            except (OSError, ValueError, IndexError):
                continue
            now += _kilobytes(status, "VmRSS") - _kilobytes(status, "RssFile")
            peak += _kilobytes(status, "VmHWM")
        return now << 10, peak << 10


def _kilobytes(status: Mapping[str, str], name: str) -> int:
    return int(status.get(name, "0 kB").split()[0])


def _pipe(pipe: Any) -> BinaryIO:
    assert pipe is not None  # both were asked for
    found: BinaryIO = pipe
    return found
