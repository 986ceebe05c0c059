"""lm-evaluation-harness through `umbel` and through its own `hf`: equal scores, equal log-likelihoods of each item."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import umbel.demo
from umbel.cli.main import main
from umbel.errors import UsageError

pytest.importorskip("lm_eval", reason="lm-evaluation-harness (umbel[lm-eval]) is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")  # of lm_eval and what it imports

WORDS = ("red", "blue", "a dog", "the old town", "yes", "no", "Monday", "two of them")
TASKS = {
    "choices": {
        "output_type": "multiple_choice",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "num_fewshot": 2,
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "texts": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
    },
    "answers": {
        "output_type": "generate_until",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_target": "{{choices[answer]}}",
        "generation_kwargs": {"until": ["\n", "."], "max_gen_toks": 12},
        "metric_list": [{"metric": "exact_match"}],
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tasks on local data: choices behind two examples, whole texts (one longer than a context), and answers."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = [
        {
            "question": f"Which word is number {i}: {', '.join(WORDS[: 2 + i % 5])}?",
            "choices": list(WORDS[: 2 + i % 4]),
            "answer": i % 2,
            "text": " ".join(WORDS[(i + j) % len(WORDS)] for j in range(4 + 300 * (i == 3) + i)),
        }
        for i in range(12)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {"test": str(folder / "rows.jsonl"), "train": str(folder / "rows.jsonl")}
    for name, task in TASKS.items():
        data = {"dataset_path": "json", "dataset_kwargs": {"data_files": files}, "test_split": "test"}
        shots = {"fewshot_split": "train", "fewshot_config": {"sampler": "first_n"}} if name == "choices" else {}
        (folder / f"{name}.yaml").write_text(json.dumps({"task": name, **data, **shots, **task}))
    return folder


def evaluated(model: Any, folder: Path, **options: Any) -> dict[str, Any]:
    """What the harness says of a model."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(folder), include_defaults=False)
    return simple_evaluate(
        model=model, tasks=list(TASKS), task_manager=manager, bootstrap_iters=0, log_samples=True, **options
    )


def scores(found: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The numbers of each task."""
    return {task: {n: v for n, v in each.items() if isinstance(v, float)} for task, each in found["results"].items()}


@pytest.mark.parametrize("chat", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_scores_and_items_are_those_of_hf(chat: bool, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval.models.huggingface import HFLM

    from umbel.harness.model import UmbelLM

    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    directory = str(umbel.demo.path("demo"))
    mine = UmbelLM(directory, dtype="float32")
    theirs = HFLM(directory, dtype="float32", device="cpu", batch_size=4, max_length=mine.max_length)
    found, wanted = (evaluated(model, folder, apply_chat_template=chat) for model in (mine, theirs))
    for task in TASKS:
        assert scores(found)[task] == pytest.approx(scores(wanted)[task], rel=1e-5)
        for one, other in zip(found["samples"][task], wanted["samples"][task], strict=True):
            assert one["arguments"] == other["arguments"]
            assert one["doc_hash"] == other["doc_hash"] and one["prompt_hash"] == other["prompt_hash"]
            for mine_, theirs_ in zip(one["resps"], other["resps"], strict=True):
                assert _equal(mine_[0], theirs_[0]), (mine_, theirs_)


def _equal(mine: Any, theirs: Any) -> bool:
    """Whether two answers are: texts as they are, log-likelihoods up to 1e-4 of them and 1e-4 besides."""
    if isinstance(theirs, str):
        return bool(mine == theirs)
    if isinstance(theirs, tuple):
        return bool(mine[0] == pytest.approx(theirs[0], abs=1e-4, rel=1e-6) and mine[1] == theirs[1])
    return bool(mine == pytest.approx(theirs, abs=1e-4, rel=1e-6))


@pytest.mark.slow
def test_the_command_runs_the_harness_with_this_model(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    given = ["--tasks", "choices", "--include_path", str(folder), "--model_args", "pretrained=demo,dtype=float32"]
    assert main(["lm-eval", *given, "--limit", "4", "--output_path", str(tmp_path)]) == 0
    (written,) = tmp_path.rglob("results_*.json")
    assert json.loads(written.read_text())["n-samples"]["choices"]["effective"] == 4


def test_what_is_not_understood_is_refused_by_name() -> None:
    from umbel.harness.model import UmbelLM

    model = UmbelLM("demo", max_length=64)
    with pytest.raises(UsageError, match="gen_kwargs typical_p: known are"):
        model._generation("Say", {"typical_p": 0.5, "until": ["\n"]})
    with pytest.raises(UsageError, match="max_gen_toks=64: leaves no prompt"):
        model._generation("Say", {"max_gen_toks": 64})
    with pytest.raises(UsageError, match="max_length=100000"):
        UmbelLM("demo", max_length=100_000)
