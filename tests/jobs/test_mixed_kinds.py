"""One file with chats, completions, embeddings, scores, forms and adapters, and bad rows among them."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import umbel
from tests.adapters import write_adapter
from tests.jobs.fakes import read_rows, write_rows
from tests.tiny_models import make_model
from umbel.api import LLM
from umbel.errors import UmbelError
from umbel.ir.params import SamplingParams
from umbel.jobs import store as store_module
from umbel.jobs.store import JobStore, Result
from umbel.jobs.verify import verify

SCHEMA = {
    "type": "object", "properties": {"n": {"enum": [1, 22, 333]}}, "required": ["n"], "additionalProperties": False,
}  # fmt: skip
GREEDY = {"temperature": 0, "max_tokens": 6}
BAD: tuple[dict[str, Any], ...] = (
    {"messages": []},
    {"prompt": "x", "lora": "swedish"},
    {"prompt": "", "pooling_params": {"task": "embed"}},
    {"prompt": "x", "structured_outputs": {"json": 7}},
    {"prompt": "a", "continuations": []},
    {"prompt": "x", "temperature": -1},
)
COUNT = 120

run = partial(umbel.run, dtype="float32", device="cpu", threads=1, quiet=True)


def kinds(i: int) -> tuple[dict[str, Any], ...]:
    """A row of each kind, of which some equal those of other `i`."""
    text = f"Once upon a time {i % 7}"
    chat = [{"role": "user", "content": text}]
    return (
        {"messages": chat, **GREEDY},
        {"prompt": text, "lora": ("sql", "mail")[i % 2], **GREEDY},
        {"prompt": text, "pooling_params": {"task": "embed"}},
        {"prompt": text, "continuations": [" a girl", " a boy"]},
        {"messages": chat, "structured_outputs": {"json": SCHEMA}, **GREEDY, "max_tokens": 60},
        {"prompt": text, **GREEDY},
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, two adapters, and the file, in which every twentieth row is at fault."""
    folder = tmp_path_factory.mktemp("mixed")
    make_model(folder / "model")
    for seed, name in enumerate(("sql", "mail")):
        write_adapter(folder / name, folder / "model", seed=seed)
    asked = [BAD[i // 20] if i % 20 == 19 else kinds(i)[i % 6] for i in range(COUNT)]
    write_rows(folder / "in.jsonl", [{"custom_id": f"r{i}", **row} for i, row in enumerate(asked)])
    return folder


def options(place: Path) -> dict[str, Any]:
    return {"model": str(place / "model"), "lora": {name: str(place / name) for name in ("sql", "mail")}}


@pytest.fixture(scope="module")
def finished(place: Path) -> Path:
    """The output of a run from beginning to end."""
    summary = run(place / "in.jsonl", place / "out.jsonl", **options(place))
    assert (summary.exit_code, summary.failed, summary.ok) == (3, len(BAD), COUNT - len(BAD))
    return place / "out.jsonl"


def test_every_row_has_what_it_has_alone(place: Path, finished: Path) -> None:
    assert not verify(place / "in.jsonl", finished).faults
    answers = read_rows(finished)
    for i in range(19, COUNT, 20):
        assert answers[i]["error"]["param"], answers[i]
    with LLM(**options(place), dtype="float32", device="cpu", threads=1) as llm:
        for i in (i for i in range(COUNT) if i % 20 != 19):
            assert answers[i]["error"] is None, answers[i]
            check(llm, i, answers[i])


def check(llm: LLM, i: int, answer: dict[str, Any]) -> None:
    """Compare the answer of row `i` with what a call for it alone gives."""
    row = kinds(i)[i % 6]
    params = SamplingParams(temperature=0.0, max_tokens=6, lora=row.get("lora"))
    if "pooling_params" in row:
        assert answer["embedding"] == llm.embed(row["prompt"])[0].outputs.embedding
    elif "continuations" in row:
        (wanted,) = llm.score([row["prompt"]], [row["continuations"]])
        assert [one["token_logprobs"] for one in answer["scores"]] == [list(one.token_logprobs) for one in wanted]
    elif "structured_outputs" in row:
        jsonschema.validate(json.loads(answer["text"]), SCHEMA)
    elif "messages" in row:
        assert answer["text"] == llm.chat(row["messages"], params, use_tqdm=False)[0].outputs[0].text
    else:
        assert answer["text"] == llm.generate(row["prompt"], params, use_tqdm=False)[0].outputs[0].text


def test_a_run_that_fails_on_its_way_is_resumed(
    place: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, add, commits, added = JobStore.commit, JobStore.add, [0], list[int]()

    def failing(store: JobStore, *args: Any, **more: Any) -> None:
        commits[0] += 1
        if commits[0] == 4:
            raise OSError(5, "Input/output error")
        commit(store, *args, **more)

    def counted(store: JobStore, result: Result) -> bool:
        added.append(result.row)
        return add(store, result)

    monkeypatch.setattr(store_module, "GROUP_ROWS", 16)
    with monkeypatch.context() as patch:
        patch.setattr(JobStore, "commit", failing)
        with pytest.raises((UmbelError, OSError)):
            run(place / "in.jsonl", tmp_path / "out.jsonl", **options(place))
    assert not (tmp_path / "out.jsonl").exists()
    monkeypatch.setattr(JobStore, "add", counted)
    assert run(place / "in.jsonl", tmp_path / "out.jsonl", **options(place)).exit_code == 3
    assert 0 < len(added) <= COUNT - 2 * 16
    assert (tmp_path / "out.jsonl").read_bytes() == finished.read_bytes()
