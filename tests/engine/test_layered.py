"""Prompts that pass the layers of a small mixture of experts in groups: tokens and log-probabilities to the last bit as
in chunks, on the kernels of processors and of GPUs; how often experts are read, counted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.books import check_books
from tests.mixtures import PLAIN, make_mixture
from tests.sched.test_layered import ByTokens
from tests.tiny_models import make_model
from umbel.api import LLM
from umbel.cache.pages import PagePool
from umbel.config import EngineConfig
from umbel.engine.build import Model, build_runner, build_store
from umbel.engine.loop import Loop
from umbel.ir.params import SamplingParams
from umbel.ir.request import Output
from umbel.ir.workload import Workload
from umbel.linear.experts import SingleProducts
from umbel.plan.passes.prefix import build_forest
from umbel.sched.lot import Lot, Standing
from umbel.sched.policies.layered import LayerPace
from umbel.sched.policies.policy import Policy
from umbel.sched.policies.stall_free import StepPace
from umbel.sched.scheduler import Scheduler

PAGES, PAGE, CHUNK, LAYERS = 60, 16, 128, 4
ANSWER = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True, logprobs=2)
DRAWN = SamplingParams(temperature=0.9, top_p=0.9, seed=7, max_tokens=3, ignore_eos=True, logprobs=2)


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("mixture"), "qwen3_moe", num_hidden_layers=LAYERS)


@dataclass
class Ran:
    """Outputs by row; of each step its group, how many experts were read in each layer, and how many tokens of prompts
    it has."""

    outputs: dict[int, Output]
    groups: list[tuple[int, int, int] | None]
    reads: list[list[int]]
    fed: list[int]

    def reads_of_prompts(self) -> list[int]:
        """Experts that were read in each layer for tokens of prompts (and of answers beside them), and how often, as
        the sum over all steps with such tokens."""
        total = [0] * LAYERS
        for reads, group, fed in zip(self.reads, self.groups, self.fed, strict=True):
            for layer in range(*(group or (0, LAYERS, 0))[:2]) if fed else ():
                total[layer] += reads[layer]
        return total


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many experts each call reads from now on; there is one in each layer of a step, in order."""
    reads = list[int]()
    apply = SingleProducts.apply

    def noted(self: SingleProducts, x: Tensor, rows: Tensor, ends: Tensor) -> Tensor:
        reads.append(int((ends.diff(prepend=ends.new_zeros(1)) > 0).sum()))
        return apply(self, x, rows, ends)

    with monkeypatch.context() as patch:
        patch.setenv("UMBEL_GRAPHS", "0")  # what is recorded makes no calls
        patch.setattr(SingleProducts, "apply", noted)
        yield reads


def lot_of(prompts: list[list[int]], params: SamplingParams, first: int, priority: int = 0) -> Lot:
    """Rows that are watched."""
    load = replace(Workload.of(prompts, params), keys=first + np.arange(len(prompts)))
    limits, standing = np.full(len(prompts), params.max_tokens), Standing.alike(len(prompts), priority)
    streamed = np.ones(len(prompts), bool)
    return Lot(load, build_forest(load), [()] * len(prompts), limits, streamed=streamed, standing=standing)


def run(model: Model, pace: StepPace, step: str, reads: list[int], size: int = 90, urgent: bool = False) -> Ran:
    """One row decodes, a prompt of several pages comes, and one that shares its beginning; then an urgent one."""
    runner = build_runner(model, build_store(model, PAGES, PAGE))
    scheduler = Scheduler(PagePool(PAGES, PAGE), CHUNK, Policy(queue="priority", step=step, pace=pace))
    scheduler.reuse()
    loop, ran, start = Loop(scheduler, runner, defaults=model.defaults), Ran({}, [], [], []), runner.start

    def noted(step):
        group = step.group
        ran.groups.append(None if group is None else (group.first, group.end, len(group.rows)))
        ran.fed.append(int(((step.row_end - step.row_begin) * ~step.answers).sum()))
        reads.clear()
        wait = start(step)
        ran.reads.append(list(reads))
        return wait

    runner.start = noted  # type: ignore[method-assign]
    long = [5 + i % 90 for i in range(size)]
    coming = {
        0: lot_of([[5, 6, 7]], ANSWER, 0),
        2: lot_of([long], DRAWN, 1, 5),
        3: lot_of([[*long[: size // 2], 9]], DRAWN, 2, 5),
    }
    if urgent:
        coming[4] = lot_of([[8, 9, 10, 11]], ANSWER, 3)
    for turn in range(400):
        if turn in coming:
            loop.add_lot(coming[turn])
        ran.outputs |= {event.row: event for event in loop.step() if isinstance(event, Output)}
        check_books(scheduler)
        if not loop.busy and turn > max(coming):
            break
    runner.close()
    return ran


def said(ran: Ran) -> list[object]:
    """All that is known of the answers."""
    return [ran.outputs[row].outputs for row in sorted(ran.outputs)]


def compare(model: Model, monkeypatch: pytest.MonkeyPatch, size: int = 90) -> tuple[Ran, Ran]:
    """The same rows by chunks and by groups of layers: the same answers to the last bit."""
    with counted(monkeypatch) as reads:
        chunked = run(model, StepPace(ByTokens(), 0.8), "stall-free", reads, size)
        layered = run(model, LayerPace(ByTokens(), 0.8, LAYERS), "layered", reads, size)
    assert set(chunked.groups) == {None} and len(chunked.outputs) == 3
    assert said(layered) == said(chunked)
    passed = [group for group in layered.groups if group is not None]
    assert len(passed) >= 2 and passed[0][0] == 0 and passed[-1][1] == LAYERS and passed[0][2] > size // 2
    return chunked, layered


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_answers_are_those_of_chunks_and_experts_are_read_once_a_prompt(
    mixture: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    model = Model(EngineConfig(str(mixture), dtype=dtype, device="cpu"))
    chunked, layered = compare(model, monkeypatch)
    assert all(0 < count <= 3 * 8 for count in layered.reads_of_prompts()), "once for each prompt"
    assert sum(chunked.reads_of_prompts()) > 3 * sum(layered.reads_of_prompts())
    for reads, group in zip(layered.reads, layered.groups, strict=True):
        assert len(reads) == LAYERS or (group is not None and len(reads) == group[1] - group[0]), "each layer once"


def test_a_paused_prompt_gives_the_tokens_that_it_gives_alone(mixture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two layers, for one that is more urgent."""
    model = Model(EngineConfig(str(mixture), dtype="float32", device="cpu"))
    with counted(monkeypatch) as reads:
        alone = run(model, LayerPace(ByTokens(), 0.8, LAYERS), "layered", reads)
        paused = run(model, LayerPace(ByTokens(), 0.8, LAYERS), "layered", reads, urgent=True)
    assert [group for group in paused.groups if group and not group[2]], "it waits for the urgent one"
    assert said(paused)[:3] == said(alone)


@pytest.mark.parametrize(
    ("family", "asked", "target", "step"),
    [
        ("qwen3_moe", {}, 0.05, "layered"),
        ("qwen3_moe", {}, None, "stall-free"),
        ("qwen3_moe", {"technique": "pages:budget=0.5", "allow_lossy": True}, 0.05, "stall-free"),
        ("llama", {}, 0.05, "stall-free"),
    ],
)
def test_sessions_of_mixtures_with_a_target_may_have_it(
    tmp_path: Path, family: str, asked: dict[str, Any], target: float | None, step: str
) -> None:
    made = make_model(tmp_path, family, num_hidden_layers=LAYERS)
    with LLM(str(made), dtype="float32", device="cpu", **asked) as llm, llm.session(tbt_target=target) as session:
        session.add([[7] * 40], ANSWER, stream=True)
        session.close()
        assert session.look(lambda loop: loop.scheduler.policy.step) == step
        assert sum(event.kind == "finished" for event in session) == 1


@pytest.mark.slow
def test_answers_are_those_of_a_processor_on_the_kernels_of_gpus(
    mixture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose bits depend on what else is in a step; their tokens do not."""
    pytest.importorskip("triton", reason="Triton is not installed here")
    from tests.engine.test_gpu_path import on_gpu_kernels

    pace, few = LayerPace(ByTokens(), 0.8, LAYERS), 20
    wanted = run(Model(EngineConfig(str(mixture), dtype="float32", device="cpu")), pace, "layered", [], few)
    if not torch.cuda.is_available():
        on_gpu_kernels(monkeypatch)
    got = run(Model(EngineConfig(str(mixture), dtype="float32")), pace, "layered", [], few)
    assert got.groups == wanted.groups and any(got.groups)
    for row, output in wanted.outputs.items():
        assert got.outputs[row].outputs[0].token_ids == output.outputs[0].token_ids


@pytest.mark.slow
@pytest.mark.parametrize("family", PLAIN)
def test_every_mixture_passes_in_groups(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_mixture(tmp_path, family, **PLAIN[family] | {"num_hidden_layers": LAYERS})
    compare(Model(EngineConfig(str(made), dtype="float32", device="cpu")), monkeypatch)
