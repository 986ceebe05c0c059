"""How a command ends: exit codes of signals at every stage, readers that leave, terminals that know ASCII only."""

from __future__ import annotations

import errno
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.cli.fake_umbel import HOLD, SEND
from tests.house.source import ROOT
from tests.jobs.fakes import write_rows
from tests.parameters import by_night, few_of
from tests.tiny_models import make_model
from umbel.jobs.verify import verify

ROWS = [{"custom_id": f"r{i}", "prompt": f"text {i}", "max_tokens": 3} for i in range(8)]
UMBEL = [sys.executable, "-m", "umbel.cli.main"]
FAKE = [sys.executable, "-m", "tests.cli.fake_umbel"]
# Makes the terminal on stdin the one whose Ctrl-C and end this process gets, then becomes the command.
CONTROLLED = """
import os, signal, sys
os.close(os.open(os.ttyname(0), os.O_RDWR))
signal.signal(signal.SIGHUP, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""
NOISE = (b"Traceback", b"terminate called", b"Aborted", b"Exception ignored", b"Error")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("process") / "tiny")


@pytest.fixture
def place(tmp_path: Path, tiny: Path) -> Path:
    """A folder with an input, in which commands are run."""
    write_rows(tmp_path / "in.jsonl", ROWS)
    (tmp_path / "tiny").symlink_to(tiny)
    return tmp_path


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]), **more}


def run(place: Path, output: str = "out") -> list[str]:
    return ["run", "in.jsonl", "-o", output, "--model", "tiny"]


def finished(command: list[str], place: Path, **more: str) -> tuple[int, bytes]:
    done = subprocess.run(command, cwd=place, env=environment(**more), capture_output=True, check=False)
    return done.returncode, done.stdout + done.stderr


class OnTerminal:
    """A process whose stdin, stdout and stderr are a terminal of its own."""

    def __init__(self, command: list[str], place: Path, environment: Mapping[str, str]):
        self.master, terminal = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", CONTROLLED, *command],
            cwd=place,
            env={**environment, "TERM": "xterm"},
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
        )
        os.close(terminal)

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def end(self) -> tuple[int, bytes]:
        """Its exit code and all that it showed."""
        shown = b""
        while True:
            try:
                part = os.read(self.master, 1 << 16)
            except OSError as error:
                assert error.errno == errno.EIO  # how Linux says that the other side is closed
                part = b""
            if not part:
                break
            shown += part
        os.close(self.master)
        return self.process.wait(600), shown


def wait_for(there: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    while not there():
        assert process.poll() is None, "it ended before that"
        time.sleep(0.005)


def quiet(shown: bytes) -> bool:
    return not [noise for noise in NOISE if noise in shown]


@pytest.fixture
def held(place: Path) -> Iterator[Path]:
    """A file that is there while the engine waits."""
    yield place / "held"


@pytest.mark.slow
def test_one_ctrl_c_on_a_terminal_drains_and_the_next_run_goes_on(place: Path, held: Path) -> None:
    """Also when it comes a second time in the same moment, as from a wrapper that hands it on: never a traceback."""
    assert finished(FAKE + run(place, "whole"), place)[0] == 0
    terminal = OnTerminal(FAKE + run(place), place, environment(**{HOLD: str(held)}))
    wait_for(held.exists, terminal.process)
    terminal.type(b"\x03")
    code, shown = terminal.end()
    assert code == 75 and b"stopped on request; 8 rows: 3 answered" in shown and quiet(shown)
    terminal = OnTerminal(FAKE + run(place), place, environment())
    code, shown = terminal.end()
    assert code == 0 and b"3 kept from an earlier run" in shown and quiet(shown)
    assert (place / "out").read_bytes() == (place / "whole").read_bytes()


@pytest.mark.parametrize("keys", by_night([b"\x03\x03"], [b"\x03\x03\x03\x03"]))
def test_two_ctrl_c_give_130_or_75(keys: bytes, place: Path, held: Path) -> None:
    terminal = OnTerminal(FAKE + run(place), place, environment(**{HOLD: str(held)}))
    wait_for(held.exists, terminal.process)
    terminal.type(keys)
    code, shown = terminal.end()
    assert code in (75, 130) and quiet(shown)
    assert finished(FAKE + run(place), place)[0] == 0
    assert verify(place / "in.jsonl", place / "out").exit_code == 0


def test_a_second_ctrl_c_ends_a_job_that_does_not_stop(place: Path) -> None:
    """And brings the cursor back."""
    terminal = OnTerminal(FAKE + run(place), place, environment(**{SEND: "stuck:2"}))
    code, shown = terminal.end()
    assert code == 130 and b"umbel: interrupted" in shown and b"\x1b[?25h" in shown and quiet(shown)


def test_a_terminal_that_is_closed_stops_a_job(place: Path, held: Path) -> None:
    terminal = OnTerminal(FAKE + run(place), place, environment(**{HOLD: str(held)}))
    wait_for(held.exists, terminal.process)
    os.close(terminal.master)
    assert terminal.process.wait(600) == 75
    assert finished(FAKE + run(place), place)[0] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("name", few_of(["run", "plan"], ["report", "verify", "sim", "doctor", "bench"]))
def test_a_stop_while_the_command_is_imported(name: str, number: int, place: Path) -> None:
    code, shown = finished([*FAKE, name], place, **{SEND: f"early:{number}"})
    assert code == (75 if name == "run" else 128 + number) and quiet(shown)
    assert not list(place.glob("out*"))


@pytest.mark.parametrize("numbers", few_of(["2,2,15,1"], ["2", "15", "1"]))
def test_a_stop_after_the_last_words_changes_nothing(numbers: str, place: Path) -> None:
    code, shown = finished(FAKE + run(place), place, **{SEND: f"late:{numbers}"})
    assert code == 0 and quiet(shown)


def stops_caught(pid: int) -> bool:
    """Whether a process has a handler for SIGTERM, which Python itself has not."""
    caught = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks for handlers in /proc")
def test_signals_are_awaited_before_anything_is_imported(place: Path) -> None:
    with subprocess.Popen(UMBEL + run(place), cwd=place, env=environment(), stderr=subprocess.PIPE) as process:
        wait_for(lambda: stops_caught(process.pid), process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(600) == 75
        assert process.stderr is not None
        assert process.stderr.read() == b"umbel: stopped before anything was run; run the same command again\n"
    code = "import sys; import umbel.cli.main; print({'typing', 'dataclasses', 'numpy', 'inspect'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-S", "-c", code], env=environment(), capture_output=True, check=True)
    assert done.stdout.strip() == b"set()"


def unread(command: list[str], place: Path) -> tuple[int, bytes]:
    """Exit code and stderr of a command whose output is not read."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, cwd=place, env=environment(), stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    return done.returncode, done.stderr


@pytest.mark.nightly
def test_a_reader_that_leaves_gives_141_and_no_traceback(place: Path) -> None:
    assert finished(FAKE + run(place), place)[0] == 0
    assert unread([*UMBEL, "run", "--help"], place)[1] == b""  # argparse itself passes over it
    lines = (["help"], ["--version"], ["plan", "in.jsonl", "--model", "tiny"], ["report", "out"])
    for line in (*lines, ["verify", "in.jsonl", "out"], ["sim", "in.jsonl", "--model", "tiny", "--machine", "a100"]):
        assert unread(UMBEL + line, place) == (141, b""), line
    assert unread(FAKE + run(place, "other"), place)[0] == 0  # its output is a file


def test_a_full_disk_behind_stdout_is_an_error(place: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("/dev/full is Linux's")
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*UMBEL, "help"], stdout=full, stderr=subprocess.PIPE, env=environment(), check=False)
    assert done.returncode == 1 and b"No space left on device" in done.stderr and done.stderr.count(b"\n") == 1


def test_a_job_goes_on_where_nobody_reads_its_progress(place: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(FAKE + run(place), cwd=place, env=environment(), stderr=writing, check=False)
    os.close(writing)
    assert done.returncode == 0 and verify(place / "in.jsonl", place / "out").exit_code == 0


ASCII = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}


@pytest.mark.nightly
def test_a_terminal_that_knows_ascii_only(place: Path) -> None:
    """Box characters become lines of ASCII; names that cannot be shown are written by number."""
    rows = [
        {"custom_id": f"größe-{i}", "prompt": f"größer, 大 {i % 2} and so on {i}", "max_tokens": 3} for i in range(8)
    ]
    write_rows(place / "größe.jsonl", [*rows, {"custom_id": "größe-0", "prompt": "x"}, {"prompt": "", "größe": 1}])
    (place / "modèle").symlink_to(place / "tiny")
    code, shown = finished([*FAKE, "run", "größe.jsonl", "-o", "größe", "--model", "modèle"], place, **ASCII)
    assert code == 3 and quiet(shown) and b"gr\\xf6\\xdfe" in shown
    shape = ["größe.jsonl", "--model", "modèle"]
    for line in (["plan", *shape], ["report", "größe"], ["verify", "größe.jsonl", "größe"], ["help"], ["run", "größe"]):
        code, shown = finished(UMBEL + line, place, **ASCII)
        assert code == {"verify": 3, "run": 2}.get(line[0], 0) and quiet(shown), shown
    assert b"`- " in finished([*UMBEL, "plan", *shape, "-v"], place, **ASCII)[1]
    code, shown = finished([*UMBEL, "sim", *shape, "--machine", "a100"], place, **ASCII)
    assert code == 0 and quiet(shown)
    terminal = OnTerminal([*FAKE, "run", "größe.jsonl", "-o", "other", "--model", "tiny"], place, environment(**ASCII))
    code, shown = terminal.end()
    assert code == 3 and quiet(shown)


@pytest.mark.nightly
def test_text_that_is_no_unicode_is_shown_by_number(place: Path) -> None:
    """On a terminal that knows all of Unicode, too."""
    write_rows(place / "in.jsonl", [b'{"custom_id": "\\ud800", "prompt": "", "\\ud800": 1}', *ROWS])
    for line in (run(place), ["verify", "in.jsonl", "out"], ["plan", "in.jsonl", "--model", "tiny"]):
        code, shown = finished(FAKE + line, place, PYTHONIOENCODING="utf-8")
        assert quiet(shown), shown
    name = os.fsdecode(b"out-\xff")
    code, shown = finished([*FAKE, "run", "in.jsonl", "-o", name, "--model", "tiny"], place, PYTHONIOENCODING="utf-8")
    assert code == 3 and quiet(shown) and b"out-\\xff" in shown


@pytest.mark.slow
@pytest.mark.nightly
def test_ctrl_c_at_random_moments() -> None:
    """A short form of `tools/signal_test.py`, with the model that ships."""
    command = [sys.executable, str(ROOT / "tools" / "signal_test.py"), "--runs", "3", "--rows", "12"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
