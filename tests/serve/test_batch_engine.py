"""The engine of a batch: rows that are taken out go on from what they had; a row that breaks the engine fails alone."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from tests.held import wait_until
from tests.serve.conftest import listening
from tests.serve.test_batches import TEXT, client_of, ended, line, lines, made, timeless
from umbel.api import LLM
from umbel.engine.loop import Loop
from umbel.jobs.signals import Drain
from umbel.jobs.unfinished import Unfinished, tokens_of
from umbel.serve.batches.control import Control
from umbel.serve.batches.shared_engine import SharedEngine

POISON = 99


def rows_of(*firsts: int) -> list[dict[str, Any]]:
    """Rows that draw; the first one ends long before the others."""
    return [line(i, TEXT, prompt=[id, 7, 9], max_tokens=40 if i else 2) for i, id in enumerate(firsts)]


def whole(llm: LLM, folder: Path, rows: list[Any]) -> list[Any]:
    """The lines of a batch that nothing disturbs."""
    with listening(llm, store=folder) as url, client_of(url) as client:
        return [timeless(one) for one in lines(client, ended(client, made(client, rows)).output_file_id)]


def test_rows_that_are_taken_out_go_on(llm: LLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(3, 4, 5, 6)
    expected = whole(llm, tmp_path / "whole", rows)
    begun, stopped, kept = threading.Event(), threading.Event(), list[int]()
    count, look, keep = SharedEngine._count, Control.look, Unfinished.keep

    def counted(engine: SharedEngine, output: Any) -> None:
        begun.set()
        count(engine, output)

    def looked(control: Control) -> None:
        if begun.is_set() and not stopped.is_set():
            stopped.set()
            raise Drain
        look(control)

    def noted(unfinished: Unfinished, records: Any, *, near: int = 0) -> None:
        kept.extend(map(tokens_of, records.values()))
        keep(unfinished, records, near=near)

    monkeypatch.setattr(SharedEngine, "_count", counted)
    monkeypatch.setattr(Control, "look", looked)
    monkeypatch.setattr(Unfinished, "keep", noted)
    assert whole(llm, tmp_path / "stopped", rows) == expected
    assert stopped.is_set() and len(kept) == 3 and min(kept) > 0


def test_a_row_that_breaks_the_engine_is_the_one_to_fail(
    llm: LLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of its own batch, and of those beside it, of which one has no other row."""
    expected = whole(llm, tmp_path / "whole", rows_of(3, 4, 5, 6))
    step, breaks = Loop.step, threading.Event()

    def broken(loop: Loop) -> Any:
        requests = loop.scheduler.requests
        live = [loop.scheduler.seqs.row.item(slot) for slot in loop.scheduler.seqs.runners()]
        if any(requests.prompt(row)[0] == POISON for row in live):
            breaks.wait(10)  # until there are rows beside it
            raise RuntimeError("poison")
        return step(loop)

    monkeypatch.setattr(Loop, "step", broken)
    with listening(llm, store=tmp_path / "broken") as url, client_of(url) as client:
        batches = [made(client, rows_of(*firsts)) for firsts in ((3, 4, 5, 6, POISON), (3,), (3, 4, 5, 6))]
        for batch in batches:
            wait_until(lambda id=batch.id: client.batches.retrieve(id).status != "validating")
        breaks.set()
        done, *beside = [ended(client, batch) for batch in batches]
        assert [one.request_counts.failed for one in beside] == [0, 0]
        for batch in (done, beside[1]):
            assert [timeless(one) for one in lines(client, batch.output_file_id)] == expected
        (fault,) = lines(client, done.error_file_id)
        assert (fault["custom_id"], fault["response"]["body"]["error"]["code"]) == ("row-4", "internal_error")
