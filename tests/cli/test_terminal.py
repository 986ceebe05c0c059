"""Plans and reports on a terminal: its width, emphasis, and nothing of either elsewhere."""

from __future__ import annotations

import io
import os
import re

import pytest

from umbel.batch.terminal import broken, columns_of, show, width_of

TEXT = "FAULTS  1 of 2 rows\nPLAN  1 row\n  kv peak       3 tokens\nforest\n└─ 3 tokens x 1 row\n"


class Terminal(io.StringIO):
    """Something in memory that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("no_color", [False, True])
def test_a_terminal_gets_emphasis(no_color: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr("sys.stdout", terminal := Terminal())
    show(TEXT)
    printed = terminal.getvalue()
    assert re.sub(r"\x1b\[[\d;]*m", "", printed) == TEXT
    assert ("\x1b[36m  kv peak" in printed) is not no_color and "\x1b[1mPLAN" in printed


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_plain_where_it_is_no_terminal(stream: type[io.StringIO], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr("sys.stdout", printed := stream())
    show(TEXT)
    assert printed.getvalue() == TEXT


def test_the_width_is_that_of_the_terminal_within_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    with open(os.devnull) as stream:
        assert (columns_of(stream), width_of(stream)) == (None, 118)
        for asked, columns, width in (("80", 80, 80), ("20", 20, 60), ("300", 300, 118), ("x", None, 118)):
            monkeypatch.setenv("COLUMNS", asked)
            assert (columns_of(stream), width_of(stream)) == (columns, width)


def test_closing_lines_go_on_below() -> None:
    line = "  " + "word " * 30 + "/a/path/" + "x" * 80
    assert list(broken([line, "short"], None)) == [line, "short"]
    first, second, *_, path, last = broken([line, "short"], 72)
    assert len(first) <= 72 and first.startswith("  word") and second.startswith("    word")
    assert path.strip().startswith("/a/path/") and last == "short"
