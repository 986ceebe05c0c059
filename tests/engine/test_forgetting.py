"""Whole jobs of a model whose rows forget: whatever the chunk, the pool and how far ahead steps are decided."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.held import stop_held
from tests.tiny_models import make_model
from umbel.api import LLM
from umbel.cli.main import main
from umbel.errors import UsageError
from umbel.ir.params import SamplingParams
from umbel.runner.ahead import AheadTorchRunner

PROMPTS = [[(i * 7 + j * (3 + i)) % 290 + 3 for j in range(70 + 25 * i)] for i in range(4)]
PARAMS = SamplingParams(temperature=0.0, max_tokens=40, ignore_eos=True)
DRAWN = SamplingParams(temperature=0.8, seed=3, n=2, max_tokens=24, ignore_eos=True)
ASKED = {
    "sink-window": "sink-window:sinks=2,window=20",
    "lag-kv": "lag-kv:budget=0.25,lag=16",
    "sage-kv": "sage-kv:budget=0.3",
    "h2o": "h2o:budget=0.3",
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny random model."""
    return str(make_model(tmp_path_factory.mktemp("model") / "model", "qwen3", max_position_embeddings=512))


@pytest.fixture(scope="module")
def dense(directory: str) -> list[tuple[tuple[int, ...], ...]]:
    """What it answers where nothing is forgotten."""
    return answers(directory)


def answers(directory: str, technique: str = "", **asked: object) -> list[tuple[tuple[int, ...], ...]]:
    """What a model answers."""
    lossy = {"technique": technique, "allow_lossy": True} if technique else {}
    given = {"dtype": "float32", "device": "cpu", "speculate": "off"} | lossy | asked
    with LLM(directory, **given) as llm:
        outputs = llm.generate(PROMPTS, [PARAMS, PARAMS, DRAWN, PARAMS])
    return [tuple(each.token_ids for each in output.outputs) for output in outputs]


@pytest.mark.parametrize("name", ASKED)
def test_answers_are_those_of_a_row_alone(
    directory: str, dense: list[tuple[tuple[int, ...], ...]], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """In other chunks, from a tight pool, with steps decided ahead, and with tokens proposed."""
    usual = answers(directory, ASKED[name])
    assert usual != dense
    assert answers(directory, ASKED[name], chunk=37, kv_tokens=288) == usual
    assert answers(directory, ASKED[name], speculate="lookup") == usual
    monkeypatch.setattr("umbel.engine.build.TorchRunner", lambda *parts: AheadTorchRunner(*parts[:3], states=parts[4]))
    assert answers(directory, ASKED[name], chunk=50) == usual


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_memories_are_of_8_bits_where_keys_are(directory: str, kind: str) -> None:
    small = answers(directory, ASKED["h2o"], kv_cache_dtype=kind)
    assert answers(directory, ASKED["h2o"], kv_cache_dtype=kind, chunk=37) == small


@pytest.mark.slow
def test_a_model_that_runs_through_transformers_forgets_the_same(directory: str) -> None:
    """It is given positions, and its attention is ours."""
    assert answers(directory, ASKED["lag-kv"], model_impl="transformers") == answers(directory, ASKED["lag-kv"])


def test_a_model_with_windows_is_refused(tmp_path: Path) -> None:
    directory = str(make_model(tmp_path / "model", "mistral", sliding_window=64))
    with pytest.raises(UsageError, match="technique='h2o': layers of 'mistral' have windows of 64 positions"):
        LLM(directory, technique="h2o", allow_lossy=True, device="cpu")


@pytest.mark.nightly
def test_a_job_that_was_killed_goes_on_with_the_same_bytes(tmp_path: Path) -> None:
    """A row that is answered again forgets the same."""
    make_model(tmp_path / "tiny", "qwen3", max_position_embeddings=512)
    rows = [{"prompt": f"Classify the text {i} " * 12, "max_tokens": 30 + i, "seed": i} for i in range(40)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = ["--technique", ASKED["h2o"], "--allow-lossy", "--kv-tokens", "1024", "--threads", "1"]

    def run_to(name: str) -> list[str]:
        given = [str(tmp_path / "in.jsonl"), "-o", str(tmp_path / name), "--model", str(tmp_path / "tiny")]
        return ["run", *given, "--dtype", "float32", "--temperature", "0.8", *asked]

    assert main(run_to("whole")) == 0
    assert stop_held(tmp_path / "held", run_to("again"), signal.SIGKILL) == -9
    assert main(run_to("again")) == 0
    assert (tmp_path / "again").read_bytes() == (tmp_path / "whole").read_bytes()
