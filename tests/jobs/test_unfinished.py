"""A job that is stopped while answers are half written: what they have is kept, and the job goes on from there."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.fakes import CONTEXT, make_job, write_rows
from tests.jobs.test_windows import SIZES, in_windows
from tests.tiny_models import make_model
from umbel.api import LLM
from umbel.engine.loop import Loop
from umbel.errors import StoreMismatch
from umbel.jobs.paths import store_path
from umbel.jobs.store import JobStore
from umbel.jobs.summary import Summary, closing_lines


def some_rows(count: int) -> list[dict[str, Any]]:
    """Rows of all kinds: several samples, log-probabilities, stop strings, prompts that are scored, twins, penalties,
    words that are not allowed."""
    rng, rows = random.Random(5), list[dict[str, Any]]()
    for i in range(count):
        row: dict[str, Any] = {"custom_id": f"row-{i}", "prompt": f"prompt {i % 9}", "max_tokens": rng.randint(2, 40)}
        row |= {"temperature": 0.0} if i % 4 == 0 else {"seed": i}
        row |= {"n": 3} if i % 5 == 1 else {}
        row |= {"logprobs": 2} if i % 3 == 0 else {}
        row |= {"prompt_logprobs": 1} if i % 7 == 0 else {}
        row |= {"stop": ["a", "th"]} if i % 6 == 2 else {}
        row |= {"repetition_penalty": 1.3, "frequency_penalty": 0.5} if i % 4 == 1 else {}
        row |= {"bad_words": ["th", "er", "in"], "logit_bias": {"9": 2}} if i % 4 == 2 else {}
        rows.append(row)
    return rows


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_model(tmp_path_factory.mktemp("model") / "llama", "llama", max_position_embeddings=CONTEXT))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "in.jsonl", some_rows(45))


def run(source: Path, output: Path, directory: str, *, windows: bool = False, **more: Any) -> Summary:
    llm = LLM(directory, device="cpu", dtype="float32", chunk=64, threads=1)
    job = make_job(source, output, llm, **more)  # type: ignore[arg-type]
    return (in_windows(job, SIZES) if windows else job).run()


class StopsAfter:
    """Sends a signal to this process after so many steps of loops."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.left, step = 0, Loop.step

        def counted(loop: Loop) -> Any:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGTERM)
            return step(loop)

        monkeypatch.setattr(Loop, "step", counted)


@pytest.mark.parametrize("windows", [False, True])
def test_the_bytes_are_those_of_an_uninterrupted_run(
    windows: bool, source: Path, directory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(source, tmp_path / "whole", directory, windows=windows)
    stops, rng, kept = StopsAfter(monkeypatch), random.Random(int(windows)), 0
    for _ in range(8):
        stops.left = rng.randrange(2, 14)
        summary = run(source, tmp_path / "out", directory, windows=windows, grace=0.0)
        if summary.status != "drained":
            break
        assert summary.exit_code == 75 and summary.discarded_tokens == 0
        kept += summary.kept_tokens
        assert bool(summary.kept_tokens) == ("kept, which go" in closing_lines(summary, quiet=False)[1])
    stops.left = 0
    last = run(source, tmp_path / "out", directory, windows=windows)
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()
    assert kept > 100 and (last.kept_rows, last.kept_tokens, last.discarded_tokens) == (0, 0, 0)
    drawn = [summary.against_plan["output_tokens"]["actual"] for summary in (whole, last)]
    assert drawn[0] == drawn[1], "no token was drawn twice"


def test_a_row_whose_record_was_damaged_begins_again(
    source: Path, directory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(source, tmp_path / "whole", directory)
    StopsAfter(monkeypatch).left = 12
    assert run(source, tmp_path / "out", directory, grace=0.0).kept_rows > 3
    store = JobStore(store_path(tmp_path / "out"))
    store._db.execute("UPDATE unfinished SET record = replace(CAST(record AS TEXT), '1', '2') WHERE row % 2 = 0")
    store.close()
    run(source, tmp_path / "out", directory)
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()


def test_what_is_kept_belongs_to_its_job(
    source: Path, directory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where no row was done: half an answer of another model must not go on."""
    source = write_rows(tmp_path / "long.jsonl", [{"prompt": f"{i}", "ignore_eos": True} for i in range(5)])
    StopsAfter(monkeypatch).left = 3
    summary = run(source, tmp_path / "out", directory, grace=0.0)
    assert summary.kept_rows > 0 and summary.ok == 0
    with pytest.raises(StoreMismatch):
        run(source, tmp_path / "out", directory, version="2")
