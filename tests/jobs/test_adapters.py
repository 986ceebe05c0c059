"""Jobs whose rows name adapters: which row gets which, what a resume must have, and what commands print of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import umbel
from tests.adapters import write_adapter
from tests.tiny_models import make_model
from umbel.api import LLM
from umbel.cli.main import main
from umbel.errors import StoreMismatch
from umbel.ir.params import SamplingParams

run = partial(umbel.run, dtype="float32", device="cpu", threads=1, quiet=True)
NAMES = (None, "sql", "mail")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and two adapters."""
    folder = tmp_path_factory.mktemp("adapters")
    make_model(folder / "model")
    for seed, name in enumerate(("sql", "mail")):
        write_adapter(folder / name, folder / "model", seed=seed)
    return folder


def options(place: Path, **changed: Path) -> dict[str, Any]:
    places = {name: str(changed.get(name, place / name)) for name in ("sql", "mail")}
    return {"model": str(place / "model"), "lora": places}


def written(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def rows_of(count: int) -> list[dict[str, Any]]:
    """Plain rows: every third without an adapter, which a null asks for too."""
    names = [NAMES[i % 3] for i in range(count)]
    return [
        {"custom_id": f"r{i}", "prompt": f"Once upon a time {i % 5}", "max_tokens": 6, "temperature": 0, "lora": name}
        for i, name in enumerate(names)
    ]


def test_each_row_gets_its_adapter(place: Path, tmp_path: Path) -> None:
    """By a field of its own, or as the model of an OpenAI line; a name that is not there is an error of its row."""
    rows = [*rows_of(12), {"prompt": "x", "lora": "swedish"}, {"prompt": "x", "lora": 3}]
    assert run(written(tmp_path / "in.jsonl", rows), str(tmp_path / "out.jsonl"), **options(place)).failed == 2
    answers = read(tmp_path / "out.jsonl")
    llm = LLM(str(place / "model"), dtype="float32", device="cpu", threads=1, lora=options(place)["lora"])
    for row, answer in zip(rows[:12], answers, strict=False):
        params = SamplingParams(temperature=0.0, max_tokens=6, lora=row["lora"])
        assert answer["token_ids"] == list(llm.generate([row["prompt"]], params)[0].outputs[0].token_ids)
    error = answers[12]["error"]
    assert (error["code"], error["param"]) == ("model_not_found", "lora")
    assert "there are sql, mail" in error["message"]
    assert answers[13]["error"]["code"] == "invalid_type"


def test_an_openai_line_names_an_adapter_as_its_model(place: Path, tmp_path: Path) -> None:
    rows = rows_of(12)
    run(written(tmp_path / "in.jsonl", rows), str(tmp_path / "out.jsonl"), **options(place))
    texts = [answer["text"] for answer in read(tmp_path / "out.jsonl")]
    lines = [
        {
            "custom_id": row["custom_id"], "method": "POST", "url": "/v1/completions",
            "body": {"model": row["lora"] or "model", **{n: row[n] for n in ("prompt", "max_tokens", "temperature")}},
        }
        for row in rows
    ]  # fmt: skip
    lines[5]["body"]["lora"] = "sql"  # and its model is the other one
    run(written(tmp_path / "openai.jsonl", lines), str(tmp_path / "openai.out.jsonl"), **options(place))
    bodies = [line["response"]["body"] for line in read(tmp_path / "openai.out.jsonl")]
    assert bodies.pop(5)["error"]["param"] == "lora"
    assert [body["choices"][0]["text"] for body in bodies] == texts[:5] + texts[6:]


def test_a_job_goes_on_with_its_own_adapters_only(place: Path, tmp_path: Path) -> None:
    source = written(tmp_path / "in.jsonl", rows_of(30))
    run(source, str(tmp_path / "whole.jsonl"), **options(place))
    assert run(source, str(tmp_path / "out.jsonl"), max_output_tokens_total=40, **options(place)).status != "complete"
    other = write_adapter(tmp_path / "other", place / "model", seed=7)
    with pytest.raises(StoreMismatch, match=r"lora\.sql"):
        run(source, str(tmp_path / "out.jsonl"), **options(place, sql=other))
    with pytest.raises(StoreMismatch, match="lora"):
        run(source, str(tmp_path / "out.jsonl"), model=str(place / "model"))
    moved = write_adapter(tmp_path / "moved", place / "model", seed=0)  # the same adapter elsewhere
    run(source, str(tmp_path / "out.jsonl"), **options(place, sql=moved))
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_choices_are_made_by_the_adapter_of_a_row(place: Path, tmp_path: Path) -> None:
    rows = [{"custom_id": f"{name}", "prompt": "Right or wrong?", "lora": name} for name in NAMES]
    source = written(tmp_path / "in.jsonl", rows)
    run(source, str(tmp_path / "out.jsonl"), choices=["right", "wrong"], **options(place))
    found = [answer["choice_logprobs"] for answer in read(tmp_path / "out.jsonl")]
    assert len({str(one) for one in found}) == len(NAMES)


def test_the_commands_tell_of_adapters(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = written(tmp_path / "in.jsonl", rows_of(9)), str(tmp_path / "out.jsonl")
    model = ["-m", str(place / "model"), "--dtype", "float32"]
    given = [*model, *(f"--lora={name}={place / name}" for name in ("sql", "mail"))]
    assert main(["plan", source, *given, "-v"]) == 0
    assert "rows by adapter: sql 3, mail 3" in " ".join(capsys.readouterr().out.split())
    assert main(["run", source, "-o", out, *given, "-q"]) == 0
    assert main(["verify", source, out]) == 0
    capsys.readouterr()
    assert main(["report", out]) == 0
    assert "read from their files 2 times" in capsys.readouterr().out
    assert main(["run", source, "-o", str(tmp_path / "b"), *model, f"--lora=x={place / 'model'}"]) == 2
    assert "adapter 'x'" in capsys.readouterr().err


@pytest.mark.nightly
def test_replicas_answer_with_adapters(place: Path, tmp_path: Path) -> None:
    source = written(tmp_path / "in.jsonl", rows_of(24))
    run(source, str(tmp_path / "one.jsonl"), **options(place))
    run(source, str(tmp_path / "two.jsonl"), data_parallel_size=2, **options(place))
    assert [row["token_ids"] for row in read(tmp_path / "two.jsonl")] == [
        row["token_ids"] for row in read(tmp_path / "one.jsonl")
    ]


def test_embeddings_are_made_by_the_adapter_of_a_row(place: Path, tmp_path: Path) -> None:
    rows = [{"custom_id": f"{i}", "prompt": "Right or wrong?", "lora": NAMES[i % 3]} for i in range(4)]
    run(written(tmp_path / "in.jsonl", rows), str(tmp_path / "out.jsonl"), task="embed", **options(place))
    found = [answer["embedding"] for answer in read(tmp_path / "out.jsonl")]
    assert found[3] == found[0] and len({str(one) for one in found}) == len(NAMES)
