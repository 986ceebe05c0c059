"""The GPU benchmark on a processor, in Triton's interpreter: its parts run, its tables hold, what fails is said."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed here")

from bench.gpu import checks, grid, predict
from bench.gpu.__main__ import main
from bench.gpu.asked import figures
from bench.gpu.attention import cases, worst_of
from bench.gpu.findings import Findings
from bench.gpu.fit import Trial, best_factor, loss
from bench.gpu.model import batches
from bench.gpu.page import page, read_results, write_between
from bench.gpu.peers import PEERS, _levels
from bench.gpu.plain import PlainModel
from bench.gpu.points import GRID, LONG, Point, parse_point
from bench.gpu.stage import Asked, Stage
from bench.gpu.trees import PAGE, Node, decodes, held, pairs, prompts, step_of, tree
from bench.gpu.wheel import MANIFEST, join, split

from tests.parameters import few_of
from tests.tiny_models import make_model
from umbel.attention.reference import ReferenceAttention
from umbel.bench.process import EngineError
from umbel.ir.spec import ModelSpec
from umbel.kv.store import KVStore

CPU = torch.device("cpu")
SPEC = ModelSpec("llama", 97, 48, 1, 4, 2, 16, 64, 4096, 1e-6, 1e4)


def small(tmp_path: Path, *more: str) -> tuple[int, dict[str, Any]]:
    """Run the script; its exit status and its record."""
    status = main(["--small", "--out", str(tmp_path), *more])
    record = json.loads((tmp_path / "result.json").read_text())
    for part in record["parts"].values():
        for rows in part["tables"].values():
            assert rows and all(list(row) == list(rows[0]) for row in rows)
    return status, record["parts"]


def stage_of(tmp_path: Path, seconds: float = 60.0, **asked: Any) -> Stage:
    """A small one."""
    found = Findings(tmp_path / "out", {})
    found.begin("checks")
    return Stage(CPU, torch.float32, Asked(small=True, **asked), found, time.monotonic() + seconds, 1e9, 1e9, tmp_path)


@pytest.mark.nightly
def test_parts_fill_their_tables(tmp_path: Path) -> None:
    status, parts = small(tmp_path, "--only", "kernels,fit")
    assert status == 0 and [part["status"] for part in parts.values()] == ["done"] * 3
    assert {row["what"] for row in parts["floors"]["tables"]["Rates"]} == {"float32 products of 64", "copy", "read"}
    kernels = parts["kernels"]["tables"]["Attention of one layer"]
    assert [row["case"] for row in kernels] == [case.name for case in cases(small=True)]
    for row in kernels:
        assert row["ours ms"] > 0 and 0 < row["share of arithmetic"] <= row["share of floor"]
    plain = next(row for row in kernels if row["kind"] == "plain paged decode")
    assert plain["x torch flash SDPA"] > 0 and plain["x FlashInfer cascade"] is None
    assert len(parts["kernels"]["checks"]) == len(kernels)
    switch = json.loads((tmp_path / "switch.json").read_text())
    assert switch["fitted"] is False and switch["share_factor"] > 0 and "processor" in switch["device"]
    assert "| case | kind | ours ms |" in (tmp_path / "result.md").read_text()


@pytest.mark.slow
def test_steps_of_a_model_and_its_start(tmp_path: Path) -> None:
    status, parts = small(tmp_path, "--only", "model")
    assert status == 0
    steps, starts = (parts["model"]["tables"][name] for name in ("Steps", "Warm start"))
    assert {row["kind"] for row in steps} == {"prefill", "decode", "shared"}
    assert all(row["ms"] > row["on the processor ms"] > 0 and row["share of bandwidth"] > 0 for row in steps)
    assert len(starts) == 1 and all(row["whole process s"] > row["load s"] > 0 for row in starts)


FAKE_VLLM = """
from types import SimpleNamespace as Of

__version__ = "0"
SamplingParams = Of


class LLM:
    def __init__(self, **settings):
        assert settings["enable_prefix_caching"] and settings["max_model_len"] >= 50
        assert settings["num_gpu_blocks_override"] == 25

    def reset_prefix_cache(self):
        return True

    def generate(self, prompts, params, use_tqdm):
        assert all(len(prompt["prompt_token_ids"]) == 50 for prompt in prompts)
        return [Of(outputs=[Of(token_ids=[1] * p.max_tokens)]) for p in params]
"""


@pytest.mark.nightly
def test_the_grid_runs_both_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vllm.py").write_text(FAKE_VLLM)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, sys.path)]))
    status, parts = small(tmp_path / "out", "--only", "grid", "--arms", "shuffled/capped")
    tables = parts["grid"]["tables"]
    assert status == 0 and parts["grid"]["notes"] == []
    assert [(run["engine"], run["rows"]) for run in tables["Runs"]] == [("umbel", 4), ("vllm", 4)]
    assert tables["vLLM / Umbel"][0]["ratio"] == tables["Runs"][1]["seconds"] / tables["Runs"][0]["seconds"]
    assert tables["Geometric means"][0]["workloads"] == 1


def test_the_grid_says_who_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "_run_engine", lambda stage, engine, *_: stage.found.note(f"{engine} ran"))
    for peer, said in (("none", "vLLM was not asked for"), ("vllm", "vLLM is not installed")):
        stage = stage_of(tmp_path, peers=(peer,))
        grid.run_grid(stage)
        assert stage.found.parts["checks"]["notes"] == [said, "umbel ran", "umbel ran"]


def test_a_peer_that_fails_leaves_its_words(tmp_path: Path) -> None:
    stage = stage_of(tmp_path)
    for engine in ("vllm", "umbel"):
        (tmp_path / f"{engine}.log").write_text("why")
        grid._say_failed(stage, engine, "whole", EngineError("gone"))
        assert (stage.found.folder / f"{engine}-whole.log").read_text() == "why"
        assert stage.found.passed == (engine == "vllm")


def test_ratios_and_means_of_the_grid(tmp_path: Path) -> None:
    stage, arm = stage_of(tmp_path), grid.Arm("shuffled", "capped")
    tasks = [grid.Task(Point(2000, 200, degree), arm, 32, tmp_path) for degree in (2, 4)]
    times = {(t.point.name, arm.name, engine): 2.0 for t in tasks for engine in ("umbel", "vllm")}
    times[tasks[0].point.name, arm.name, "vllm"] = 8.0
    grid._say_ratios(stage, tasks, times), grid._say_means(stage, tasks, times)
    tables = stage.found.parts["checks"]["tables"]
    assert [(row["ratio"], row["prefixes"]) for row in tables["vLLM / Umbel"]] == [(4.0, 32_000), (1.0, 16_000)]
    assert tables["Geometric means"][0]["vLLM / Umbel"] == pytest.approx(2.0)


def test_a_failing_check_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An oracle that turns its pairs the wrong way round is caught, and the exit status says so."""
    monkeypatch.setattr(checks, "ORACLES", {"a plain decoder": checks.ORACLES["a plain decoder"]})
    monkeypatch.setattr(checks, "_check_top_1", lambda stage: None)
    status, parts = small(tmp_path, "--only", "checks")
    assert status == 0 and all(check["passed"] for check in parts["checks"]["checks"])
    monkeypatch.setattr(checks, "_check_bits", lambda stage: None)
    monkeypatch.setattr(PlainModel, "_turn", lambda self, x: x.flip(-1))
    status, parts = small(tmp_path, "--only", "checks")
    failed = [check["name"] for check in parts["checks"]["checks"] if not check["passed"]]
    assert status == 1 and failed == ["greedy tokens, llama, float32, against a plain decoder"]
    assert f"FAILED: {failed[0]}" in (tmp_path / "result.md").read_text()
    reached = {figure.name: figure.reach(parts) for figure in figures()}
    assert reached["greedy tokens in float32"] == ("1 of 2 checks passed", False)


def test_a_part_that_breaks_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fall(stage: Stage) -> None:
        stage.found.row("Before", n=1)
        raise RuntimeError("out of ideas")

    monkeypatch.setattr("bench.gpu.attention.time_kernels", fall)
    monkeypatch.setattr("bench.gpu.fit.fit_switch", lambda stage: stage.found.row("After", n=2))
    status, parts = small(tmp_path, "--only", "kernels,fit")
    assert status == 1 and [parts[name]["status"] for name in ("kernels", "fit")] == ["failed", "done"]
    assert parts["kernels"]["tables"]["Before"] == [{"n": 1}] and "out of ideas" in parts["kernels"]["notes"][0]


def test_a_part_stops_when_its_seconds_are_spent(tmp_path: Path) -> None:
    stage = stage_of(tmp_path, seconds=0.0)
    assert list(stage.each("cases", ["a", "b"])) == []
    assert stage.found.parts["checks"]["notes"] == ["left out for want of time: 2 of cases, from a on"]


@pytest.mark.parametrize("family", few_of(["qwen3"], ["llama", "qwen2", "mistral"]))
def test_the_plain_decoder_is_transformers(tmp_path: Path, family: str) -> None:
    from transformers import AutoModelForCausalLM

    directory, ids = make_model(tmp_path, family, seed=5), [7, 3, 250, 99, 12, 12, 8]
    theirs = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)(torch.tensor([ids])).logits[0]
    torch.testing.assert_close(PlainModel(directory).logits(ids), theirs.detach(), atol=2e-5, rtol=1e-4)


TREES = {
    "apart": decodes(3, 0, 20),
    "shared": decodes(3, 40, 5),
    "three levels": tree([(2, 33), (2, 16), (2, 0)], 3),
    "prompts and decodes": [*prompts(2, 21), *decodes(2, 0, 18), Node(-1, 50), Node(4, 9, 4)],
}


@pytest.mark.parametrize("name", TREES)
def test_steps_made_by_hand(name: str) -> None:
    """Every row sees its own past, and what peers are given is the same attention."""
    step = step_of(TREES[name])
    store = KVStore(SPEC, len(step.pages), PAGE, torch.float32, CPU)
    draw = torch.Generator().manual_seed(1)
    for tensor in store.keys + store.values:
        tensor.normal_(generator=draw)
    q = torch.randn((step.n_rows, 4, 16), generator=draw)
    backend = ReferenceAttention(SPEC, store)
    assert backend.prepare(step) == pairs(step) and held(step) == sum(node.tokens for node in TREES[name])
    out = backend.attend(0, q)
    assert worst_of(step, store, SPEC, q, out, rows=99) < 1e-6
    assert worst_of(step, store, SPEC, q, out.roll(1, 0), rows=99) > 1e-2
    if name in ("apart", "shared"):
        theirs = PEERS["torch flash SDPA"].make(SPEC, step, store, q, TREES[name])()
        torch.testing.assert_close(theirs, out, atol=1e-5, rtol=1e-5)


def test_levels_for_a_cascade_cover_every_key() -> None:
    step = step_of(TREES["three levels"])
    levels = _levels(step)
    assert len(levels) == 3
    for rows, begins, pages, last in levels:
        assert rows[0] == 0 and rows[-1] == step.n_rows and begins[-1] == len(pages)
        assert len(rows) == len(begins) == len(last) + 1
    tokens = sum(int(((np.diff(begins) - 1) * PAGE + last).sum()) for _, begins, _, last in levels)
    assert tokens == held(step)


def test_all_real_cases_can_be_made() -> None:
    """Their steps are numpy only: what a GPU would be given exists."""
    for nodes in [case.nodes for case in cases(small=False)] + [batch.nodes for batch in batches(small=False)]:
        step = step_of(nodes)
        assert step.n_rows == sum(node.new for node in nodes) and held(step) == sum(node.tokens for node in nodes)


def test_the_fitted_factor_loses_least() -> None:
    """A pass pays from a gain of 3 on: any factor between 1/3 and 1 chooses right, the guess that always makes one does
    not."""
    trials = [Trial(2, 2 * gain, 1, one_pass=3.0, per_row=float(gain)) for gain in (1, 2, 4, 8)]
    assert [trial.gain for trial in trials] == [1, 2, 4, 8]
    share_factor = best_factor(trials)
    assert 1 / 4 < share_factor < 1 / 2 and loss(trials, share_factor) == 0 and loss(trials, 1e9) > 0.5


def test_wheels_are_split_and_joined(tmp_path: Path) -> None:
    wheels, loads, pieces = (tmp_path / name for name in ("wheels", "loads", "pieces"))
    wheels.mkdir(), pieces.mkdir()
    contents = {"big.whl": np.random.default_rng(0).bytes(2500), "a.whl": b"a" * 400, "b.whl": b"", "c.whl": b"c" * 10}
    for name, data in contents.items():
        (wheels / name).write_bytes(data)
    assert split(wheels, loads, 1000) == 3
    for load in loads.iterdir():
        assert sum(path.stat().st_size for path in load.iterdir() if path.name != MANIFEST) <= 1000
        for path in load.iterdir():
            path.rename(pieces / path.name)
    joined = join(pieces, tmp_path / "joined")
    assert {path.name: path.read_bytes() for path in joined} == contents
    (pieces / "a.whl.000").write_bytes(b"a" * 399 + b"b")
    with pytest.raises(ValueError, match=r"a\.whl"):
        join(pieces, tmp_path / "joined")


def test_points_are_read() -> None:
    assert [parse_point(point.name) for point in GRID] == list(GRID) and parse_point("16000/200x16") == LONG


def test_predictions_are_those_of_the_cost_model() -> None:
    """Floors are below what is expected, and a small job is simulated with both engines."""
    for found in predict.steps().values():
        assert found["floor"] < found["seconds"] and max(found["arithmetic"], found["bytes"]) < 1
    case_of = predict.SimCase(Point(320, 32, 4).workload(64), predict.SHAPES["llama-3.1-8b"], predict.named("h200"),
                           predict.EngineConfig("x", kv_tokens=4000))  # fmt: skip
    ours, theirs = (predict.simulate(case_of, engine) for engine in ("umbel", "vllm"))
    assert 0 < ours < theirs
    kept = predict.kept_jobs()
    assert {name for name, *_ in predict.job_names((*GRID, *predict.APART))} == set(kept["seconds"])


def test_the_page_shows_every_asked_figure(tmp_path: Path) -> None:
    kept = predict.kept_jobs()
    text = page([], kept["seconds"], kept["rows"])
    assert text.count("not measured yet: no GPU was available") == len(figures())
    docs = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text()
    assert all(figure.name in docs for figure in figures())
    there = tmp_path / "page.md"
    there.write_text("before\n<!-- gpu: begin -->\nold\n<!-- gpu: end -->\nafter\n")
    write_between(there, text)
    assert there.read_text().startswith("before") and "old" not in there.read_text()


def test_measured_figures_replace_expectations() -> None:
    row = {"step": "x", "kind": "prefill", "share of matmul rate": 0.5}
    ratios = [{"point": p.name, "arm": "shuffled/whole", "rows": 64, "prefixes": 1, "ratio": 1.7} for p in GRID]
    steps = {"tables": {"Steps": [row]}, "notes": []}
    runs = [
        {"model": steps, "grid": {"tables": {"vLLM / Umbel": some}, "notes": []}} for some in (ratios[:4], ratios[4:])
    ]
    about = {"device": "NVIDIA H200", "date": "d", "command": "c", "versions": "v"}
    kept = predict.kept_jobs()
    text = page([{"about": about, "parts": parts} for parts in runs], kept["seconds"], kept["rows"])
    assert "**50% to 50%: not reached**" in text and "| 1.70x (10 of 10 workloads, 64 to 64 rows) |" in text
    part = page([{"about": about, "parts": runs[0]}], kept["seconds"], kept["rows"])
    assert "**1.70x (4 of 10 workloads, 64 to 64 rows): not reached**" in part


def test_results_of_a_check_of_the_script_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps({"about": {"device": "no GPU: x"}, "parts": {}}))
    with pytest.raises(ValueError, match="mean nothing"):
        read_results([path])
