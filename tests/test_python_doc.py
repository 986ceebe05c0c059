"""docs/python.md says what the public names promise today."""

from __future__ import annotations

import umbel
from tests.python_doc import DOC, document


def test_the_page_is_current() -> None:
    page = DOC.read_text(encoding="utf-8")
    assert page == document(), "write it again: python -m tests.python_doc"
    assert all(f"\n## {name}\n" in page for name in umbel.__all__)


def test_methods_that_callers_need_are_there() -> None:
    page = DOC.read_text(encoding="utf-8")
    headings = [line for line in page.splitlines() if line.startswith("##")]
    assert len(headings) == len(set(headings))
    assert {"generate", "stream", "chat", "plan", "score", "choose", "session", "close"} <= {
        line.split(".")[1] for line in page.splitlines() if line.startswith("### LLM.")
    }
