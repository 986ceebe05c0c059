"""The recipe that trains a draft model on a job's own answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tools.fast_draft import Answered, Score, check_tokenizers, main, ngram_hits, score

from tests.tiny_models import make_model
from umbel.api import LLM
from umbel.errors import UsageError

T, F = True, False


@pytest.mark.parametrize(
    ("hits", "wanted"),
    [
        ([T, T, F, T], Score(0.75, 2.0)),  # two come true and a third is drawn; then the last, which ends the answer
        ([F, F, F], Score(0.0, 1.0)),
        ([T] * 10, Score(1.0, 5.0)),  # four proposed tokens and one more, twice
        ([], Score(0.0, 0.0)),
    ],
)
def test_scores_count_the_steps_of_the_target(hits: list[bool], wanted: Score) -> None:
    assert score([Answered([1], [2] * len(hits))], lambda row: hits) == wanted


def test_lookup_takes_the_latest_of_the_longest_matches() -> None:
    assert ngram_hits(Answered([1, 2, 3, 9, 2, 3, 8, 2, 3], [8, 2, 7])) == [T, T, F]


@pytest.mark.slow
def test_a_draft_learns_what_the_target_answers(tmp_path: Path) -> None:
    target, draft = make_model(tmp_path / "target", "qwen3", seed=1), make_model(tmp_path / "draft", "qwen3", seed=2)
    job = tmp_path / "job.jsonl"
    job.write_text("".join(json.dumps({"prompt": f"say {i % 5}"}) + "\n" for i in range(30)))
    given = [str(job), "--model", str(target), "--draft", str(draft), "--out", str(tmp_path / "out")]
    scores = main([*given, "--steps", "120", "--max-tokens", "6", "--rate", "3e-3"])
    assert scores["draft after"].accepted > 0.9 and scores["draft before"].accepted < 0.5
    with LLM(str(tmp_path / "out"), device="cpu") as trained:
        assert trained.tokenizer.encode(["say 1"]) == LLM(str(target), device="cpu").tokenizer.encode(["say 1"])


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    one, other = make_model(tmp_path / "one"), make_model(tmp_path / "other")
    known = json.loads((other / "tokenizer.json").read_text())
    known["added_tokens"] = []
    (other / "tokenizer.json").write_text(json.dumps(known))
    with pytest.raises(UsageError, match="has another tokenizer"):
        check_tokenizers(one, other)
