"""The process that renders a chat template: how it is started, asked, and why it ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from umbel.errors import ModelError

_START = "import sys; sys.path = sys.argv[1:]; from umbel.text.chat_worker import main; main()"
_LIBRARY_PATHS = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
_PARTING_SECONDS = 5.0  # between the end of a process's output and its own; far more than it takes
_OUT_OF_MEMORY = 77  # exit code; 1 would also be that of a process that failed in another way


@dataclass(frozen=True, slots=True)
class TemplateLimits:
    """The limits of one rendering.

    `seconds`: of processor time, so that a busy machine makes no template fail.
    `memory_bytes`: of the whole process.
    `output_chars`: of the prompt.
    """

    seconds: float = 5.0
    memory_bytes: int = 2**30
    output_chars: int = 32 * 2**20


class TemplateProcess:
    """A running template. `fault` says why it was refused, None when it can be asked; `reads` are the variables that
    it looks at."""

    def __init__(self, start: Mapping[str, Any], limits: TemplateLimits):
        self._limits = limits
        self.n_answers = 0
        try:
            self._process = subprocess.Popen(
                _command(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={name: os.environ[name] for name in _LIBRARY_PATHS if name in os.environ},
                start_new_session=True,  # Ctrl-C is for the job, which decides what ends
            )
        except OSError as error:
            raise ModelError(f"the process for the chat template cannot be started: {error}") from None
        self._finalizer = weakref.finalize(self, _close, self._process)
        self._pid = os.getpid()
        opening = {**start, **asdict(limits), "memory_code": _OUT_OF_MEMORY}
        first = self._exchange(json.dumps(opening).encode() + b"\n", 1)
        opened = json.loads(first[0]) if first else {"fault": self.end(), "reads": ()}
        self.fault: str | None = opened["fault"]
        self.reads = frozenset[str](opened["reads"])

    @property
    def usable(self) -> bool:
        """Whether it runs and is this process's own: after a fork, two would talk into the same pipe."""
        return self._finalizer.alive and self._pid == os.getpid()

    @property
    def timed_out(self) -> bool:
        """Whether it ended because a rendering ran for too long."""
        return self._process.returncode == -signal.SIGPROF

    def ask(self, lines: Sequence[bytes]) -> list[bytes]:
        """The answers to conversations, a line of JSON each; fewer when the process ended on the way."""
        answers = self._exchange(b"".join([b"%d\n" % len(lines), *(line + b"\n" for line in lines)]), len(lines))
        self.n_answers += len(answers)
        return answers

    def end(self) -> str:
        """Why the process ended, after its output has; a process that still runs is ended."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_PARTING_SECONDS)
        self._finalizer()
        code = self._process.returncode
        if self.timed_out:
            return f"it ran for more than {self._limits.seconds:g} seconds"
        if code == _OUT_OF_MEMORY:
            return f"it took more than {self._limits.memory_bytes / 2**20:,.0f} MiB of memory"
        return f"it ended its process ({signal.Signals(-code).name if code < 0 else f'exit code {code}'})"

    def _exchange(self, data: bytes, n_lines: int) -> list[bytes]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        try:
            stdin.write(data)
            stdin.flush()
            lines = [stdout.readline() for _ in range(n_lines)]
        except BrokenPipeError:
            return []
        except BaseException:  # interrupted between question and answer: what comes would answer something else
            self._finalizer()
            raise
        return [line for line in lines if line.endswith(b"\n")]


def _command() -> list[str]:
    """The command: Python without the user's settings, with this process's module path."""
    path = [str(Path(__file__).parents[2]), *(entry for entry in sys.path if os.path.isabs(entry))]
    return [sys.executable, "-I", "-S", "-c", _START, *path]


def _close(process: subprocess.Popen[bytes]) -> None:
    """End a process, even while a thread waits for its answer, and free the memory that it holds here."""
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(OSError):  # what was left to write has no reader any more
                stream.close()
