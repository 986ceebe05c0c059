"""Rows that have continuations scored or choose among them: their lines, their faults, and that kills lose nothing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.fakes import FakeEngine, make_job, read_rows, write_rows
from tests.tiny_models import make_model
from umbel.api import LLM
from umbel.cli.main import main
from umbel.ir.branches import Branches
from umbel.jobs.read.records import ReadOptions
from umbel.jobs.verify import verify

PLAIN = {"prompt": "hi", "max_tokens": 2}


def answers(directory: Path, rows: list[Any], name: str = "out.jsonl", **more: Any) -> list[dict[str, Any]]:
    source = write_rows(directory / "in.jsonl", rows)
    make_job(source, directory / name, **more).run()
    verdict = verify(source, directory / name)
    assert not verdict.faults, verdict.findings
    return read_rows(directory / name) if name.endswith("jsonl") else []


def fake_score(text: str) -> list[float]:
    """What FakeEngine gives for the tokens of a continuation."""
    return [-(1 + ord(c) % 511 % 7) / 4 for c in text]


def test_continuations(tmp_path: Path) -> None:
    asked = {"prompt": "ab", "continuations": ["cde", "f", [100, 101]]}
    plain, scored = answers(tmp_path, [PLAIN, {"custom_id": "b", **asked}])
    assert list(scored) == ["custom_id", "scores", "usage", "error"] and plain["text"]
    assert [score["token_ids"] for score in scored["scores"]] == [[99, 100, 101], [102], [100, 101]]
    for score, text in zip(scored["scores"], ("cde", "f", "de"), strict=True):
        each = fake_score(text)
        assert score == {
            "logprob": sum(each), "mean": sum(each) / len(each), "token_ids": list(map(ord, text)),
            "token_logprobs": each,
        }  # fmt: skip
    assert scored["usage"] == {"prompt_tokens": 2 + 3 + 1 + 2, "completion_tokens": 0}


def test_choices(tmp_path: Path) -> None:
    rows = [
        {"prompt": "q ", "choices": ["no", "yes"]},
        {"messages": [{"role": "user", "content": "q"}], "choices": ["no", "yes"]},
    ]
    rows.append({**rows[0], "calibration_prompt": "z"})
    for row, blank in zip(answers(tmp_path, rows), (" ", "", " "), strict=True):
        assert list(row) == [
            *("custom_id", "choice", "choice_logprobs", "choice_probabilities", "usage", "error"),
        ]  # fmt: skip
        logprobs = [sum(fake_score(blank + label)) for label in ("no", "yes")]
        assert row["choice_logprobs"] == logprobs
        weights = logprobs if row["custom_id"] != "2" else [sum(fake_score(" ")), sum(fake_score(" "))]
        total = sum(map(math.exp, weights))
        assert row["choice_probabilities"] == pytest.approx([math.exp(w) / total for w in weights])
        assert row["choice"] == ["no", "yes"][weights.index(max(weights))]


def test_choices_of_the_command_line_are_for_rows_that_name_none(tmp_path: Path) -> None:
    options = ReadOptions(width=512, models=frozenset({"fake"}), branches=Branches(("a", "b"), True))
    rows = [{"prompt": "q"}, {"prompt": "q", "choices": ["c", "d"]}, {"prompt": "q", "continuations": ["e"]}]
    got = answers(tmp_path, rows, options=options)
    assert [row.get("choice") for row in got] == ["b", "c", None] and len(got[2]["scores"]) == 1


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"continuations": []}, "invalid_value", "from 1 to"),
    ({"continuations": "yes"}, "invalid_type", "must be a list"),
    ({"continuations": [7]}, "invalid_type", "must be a list of token ids"),
    ({"continuations": ["a", ""]}, "empty_continuation", "no tokens of its own"),
    ({"continuations": [[]]}, "empty_continuation", "no tokens of its own"),
    ({"continuations": [[512]]}, "invalid_token_id", "0 to 511"),
    ({"continuations": ["x" * 63]}, "context_length_exceeded", "the context is 64"),
    ({"choices": ["a"]}, "invalid_value", "at least 2"),
    ({"choices": ["a", ""]}, "invalid_type", "not empty"),
    ({"choices": ["a", 3]}, "invalid_type", "must be a text"),
    ({"choices": ["New", "York", "New York"]}, "invalid_value", "'New' is the beginning of choice 'New York'"),
    ({"choices": ["a", "a"]}, "invalid_value", "is the beginning of"),
    ({"choices": ["a", "b"], "continuations": ["c"]}, "invalid_value", "one of them"),
    ({"choices": ["a", "b"], "calibration_prompt": 5}, "invalid_type", "must be a text"),
    ({"choices": ["a", "b"], "calibration_prompt": "  "}, "empty_prompt", "no tokens"),
    ({"continuations": ["a"], "calibration_prompt": "n"}, "invalid_value", "only means something with choices"),
    ({"calibration_prompt": "n"}, "invalid_value", "only means something with choices"),
    ({"choices": ["a", "b"], "prompt": ""}, "empty_prompt", "prompt is empty"),
    ({"choices": ["\ud800", "b"]}, "invalid_json_line", ""),
]  # fmt: skip


def test_faults_leave_the_neighbours_as_they_are(tmp_path: Path) -> None:
    fine = [{"prompt": f"hi {i}", "choices": ["no", "yes"]} for i in range(3)]
    wanted = answers(tmp_path, fine)
    rows: list[Any] = [{"prompt": "hi", **more} for more, _, _ in BAD]
    got = answers(tmp_path, [fine[0], *rows, fine[1], fine[2]], "mixed.jsonl")
    for row, (more, code, text) in zip(got[1:-2], BAD, strict=True):
        assert row["error"] is not None, more
        assert row["error"]["code"] == code and text in row["error"]["message"], (more, row["error"])
    same = [{**row, "custom_id": None} for row in (got[0], *got[-2:])]
    assert same == [{**row, "custom_id": None} for row in wanted]


def test_parquet(tmp_path: Path) -> None:
    rows = [
        {"prompt": "q", "choices": ["c", "d"]},
        {"prompt": "q", "continuations": ["e"]},
        {"prompt": "q", "max_tokens": 1},
    ]
    answers(tmp_path, rows, "out.parquet")


class Failing(FakeEngine):
    """Stops in the middle of a row's continuations."""

    def execute(self, workload: Any, plan: Any = None) -> Any:
        for i, output in enumerate(super().execute(workload, plan)):
            if i == 5:
                raise KeyboardInterrupt
            yield output


def test_a_row_of_which_some_continuations_were_scored_is_run_again(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{i}", "choices": ["no", "yes", "maybe"]} for i in range(4)]
    wanted = answers(tmp_path, rows)
    source, output = write_rows(tmp_path / "in.jsonl", rows), tmp_path / "killed.jsonl"
    with pytest.raises(KeyboardInterrupt):
        make_job(source, output, Failing()).run()
    make_job(source, output, engine := FakeEngine()).run()
    assert read_rows(output) == wanted and 0 < len(set(engine.seen)) < 4


def test_a_job_gives_what_the_library_gives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(make_model(tmp_path / "model"))
    texts, labels = ["Once upon a time", "the dog reads", "Classify the text:"], ["right", "wrong answer", "the report"]
    rows = [{"text": text} for text in texts]
    source = write_rows(tmp_path / "in.jsonl", rows)
    command = ["run", str(source), "-o", str(tmp_path / "out.jsonl"), "--model", model, "--dtype", "float32", "-q"]
    command += ["--prompt", "{text} is: ", "--choices", ",".join(labels), "--calibration-prompt", "N/A is: "]
    capsys.readouterr()
    assert main(["plan", *command[1:2], *command[4:-2], *command[-2:]]) == 0
    assert "PLAN  3 rows in 18 branches," in capsys.readouterr().out  # each choice behind the text, and behind N/A
    assert main(command) == 0
    with LLM(model, dtype="float32", device="cpu") as llm:
        wanted = llm.choose([f"{text} is: " for text in texts], labels, "N/A is: ")
    for row, want in zip(read_rows(tmp_path / "out.jsonl"), wanted, strict=True):
        assert row["choice"] == want.choice and row["choice_logprobs"] == list(want.logprobs)
        assert row["choice_probabilities"] == list(want.probabilities)
