"""The part `model`: steps of a whole model with random weights, of Llama-3.1-8B's shape, and how soon it is ready.

Prompts, decodes that share nothing, decodes behind a shared prefix, and the three batches of Sarathi-Serve (arXiv
2403.02310): a prompt alone, decodes alone, both together. Times are of whole steps by the processor's clock, sampling
included; "on the processor" is the part of it that lays the step out. FLOPs and bytes are the useful ones
(`umbel.cost`). The warm start is a new process from its first instruction to its first token, with a checkpoint that
has just been written and so lies in the page cache.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from bench.gpu.points import MODEL
from bench.gpu.stage import Stage, time_wall
from bench.gpu.trees import PAGE, Node, decodes, held, pairs, prompts, step_of
from umbel.config import EngineConfig
from umbel.cost.cards import named
from umbel.cost.load import Load
from umbel.cost.roofline import Price
from umbel.cost.shape import Shape
from umbel.engine.build import Model, build_runner, build_store
from umbel.ir.spec import ModelSpec
from umbel.ir.step import Step
from umbel.models.checkpoint import INDEX_FILE
from umbel.models.weights import dummy_weights, layout
from umbel.runner.base import Runner, run_step
from umbel.sim.shapes import SHAPES

TINY = ModelSpec("llama", 300, 128, 2, 4, 2, 32, 96, 4096, 1e-5, 5e5, dtype="float32")
ROOT = Path(__file__).parents[2]
SHARD_BYTES = 4 << 30
START_LIMIT = 120.0  # seconds that one start may take


@dataclass(frozen=True, slots=True)
class Batch:
    """One step to time."""

    name: str
    kind: str
    nodes: tuple[Node, ...]

    def __str__(self) -> str:
        return self.name


def batches(*, small: bool) -> list[Batch]:
    """What is timed, the asked figures first."""
    if small:
        return [
            Batch("prefill, 1 x 40", "prefill", tuple(prompts(1, 40))),
            Batch("decode, 3 rows of 20", "decode", tuple(decodes(3, 0, 20))),
            Batch("decode, 4 rows behind 33", "shared", tuple(decodes(4, 33, 5))),
        ]
    k = 1024
    found = [
        Batch(f"prefill, {n} x {size:,}", "prefill", tuple(prompts(n, size))) for n, size in ((1, 8192), (4, 2048))
    ]
    found += [Batch(f"decode, 256 rows of {n:,}", "decode", tuple(decodes(256, 0, n))) for n in (512, 1024, 2048)]
    found += [
        Batch(f"decode, 1,024 rows behind {n}K", "shared", tuple(decodes(k, n * k, 64))) for n in (1, 2, 4, 8, 16)
    ]
    return found + sarathi()


def sarathi() -> list[Batch]:
    """The published sizes (1,024 tokens; 4 and 3 decodes), and ours."""
    found = []
    for chunk, rows, apart in ((1024, 3, 4), (2048, 256, 256)):
        both = (*prompts(1, chunk - rows), *decodes(rows, 0, 1024))
        found += [
            Batch(f"Sarathi: prompt of {chunk:,}", "sarathi", tuple(prompts(1, chunk))),
            Batch(f"Sarathi: {apart} decodes of 1,024", "sarathi", tuple(decodes(apart, 0, 1024))),
            Batch(f"Sarathi: prompt of {chunk - rows:,} and {rows} decodes", "sarathi", both),
        ]
    return found


def shape_of(stage: Stage) -> ModelSpec:
    """The model that is timed."""
    return TINY if stage.small else SHAPES[MODEL]


def write_config(directory: Path, spec: ModelSpec) -> Path:
    """A model directory without weights."""
    directory.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": spec.vocab_size,
        "hidden_size": spec.hidden_size, "num_hidden_layers": spec.n_layers, "num_attention_heads": spec.n_heads,
        "num_key_value_heads": spec.n_kv_heads, "head_dim": spec.head_dim, "hidden_act": "silu",
        "intermediate_size": spec.intermediate_size, "max_position_embeddings": spec.max_positions,
        "rms_norm_eps": spec.norm_eps, "rope_theta": spec.rope_theta, "tie_word_embeddings": spec.tied_embeddings,
        "bos_token_id": 0, "eos_token_id": 1, "torch_dtype": spec.dtype,
    }  # fmt: skip
    (directory / "config.json").write_text(json.dumps(config))
    return directory


@torch.inference_mode()
def time_model(stage: Stage) -> None:
    """One row of the table for each step; then the start."""
    directory = write_config(stage.scratch / "model", shape_of(stage))
    time_steps(stage, directory)
    stage.free()
    if stage.small or stage.left > 75:
        time_start(stage, directory)
    else:
        stage.found.note("left out for want of time: the warm start")


def time_steps(stage: Stage, directory: Path) -> None:
    """Steps through the engine's own runner."""
    began = time.perf_counter()
    asked = {"dtype": str(stage.dtype).removeprefix("torch."), "device": str(stage.device), "load_format": "dummy"}
    model = Model(EngineConfig.of(str(directory), **asked))
    stage.free()
    stage.found.note(f"random weights made in {time.perf_counter() - began:.1f} s")
    waiting = batches(small=stage.small)
    steps = {batch.name: step_of(batch.nodes, vocab=model.spec.vocab_size) for batch in waiting}
    store = build_store(model, max(len(step.pages) for step in steps.values()), PAGE)
    for tensor in store.keys + store.values:
        tensor.normal_()
    runner = build_runner(model, store)
    for batch in stage.each("the steps", waiting, 0.0 if stage.small else 4.0):
        stage.found.row("Steps", **_measure(stage, model, runner, batch, steps[batch.name]))


def _measure(stage: Stage, model: Model, runner: Runner, batch: Batch, step: Step) -> dict[str, Any]:
    taken = time_wall(lambda: run_step(runner, step), stage)
    attention = getattr(runner, "attention", None)  # not every runner lays steps out itself
    lay_out = None if attention is None else time_wall(lambda: attention.prepare(step), stage, 5).ms
    dtype = str(stage.dtype).removeprefix("torch.")
    price = Price(Shape.of(model.spec, dtype), named("h200"), dtype, model.spec.n_layers)
    load = Load.one(step.n_rows, len(step.sampling), pairs(step), held(step) - step.n_rows)
    floor = stage.floor(float(price.flops(load)[0]), float(price.n_bytes(load)[0]))
    return {
        "step": batch.name, "kind": batch.kind, "ms": taken.ms, "spread": taken.spread,
        "on the processor ms": lay_out, "tokens/s": step.n_rows / taken.ms * 1e3, **floor,
        "share of matmul rate": floor["arithmetic ms"] / taken.ms, "share of bandwidth": floor["bytes ms"] / taken.ms,
    }  # fmt: skip


def time_start(stage: Stage, directory: Path) -> None:
    """Write a checkpoint, then start twice: what a first start compiles, the second finds."""
    spec = shape_of(stage)
    began = time.perf_counter()
    n_bytes = write_checkpoint(directory, spec, stage)
    stage.found.note(f"checkpoint of {n_bytes / 1e9:.1f} GB written in {time.perf_counter() - began:.1f} s")
    for number in stage.each("the starts", (1,) if stage.small else (1, 2), 0.0 if stage.small else 20.0):
        stage.found.row("Warm start", start=number, **start_once(stage, directory))


def start_once(stage: Stage, directory: Path) -> dict[str, float]:
    """Seconds of a process of its own, from before it began."""
    dtype = str(stage.dtype).removeprefix("torch.")
    command = [sys.executable, "-m", "bench.gpu.start", str(directory), str(stage.device), dtype]
    limit = START_LIMIT if stage.small else min(START_LIMIT, max(stage.left, 1.0))
    began = time.perf_counter()
    ran = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False, cwd=ROOT)
    whole = time.perf_counter() - began
    if ran.returncode:
        raise RuntimeError(f"the start failed: {ran.stderr[-500:]}")
    return {"whole process s": whole, **json.loads(ran.stdout.splitlines()[-1])}


def write_checkpoint(directory: Path, spec: ModelSpec, stage: Stage) -> int:
    """Random weights under the names of Hugging Face, in shards; gives their bytes."""
    held: dict[str, Tensor] = {}
    places: dict[str, str] = {}
    total = size = 0
    for name, tensor in stored_tensors(spec, stage):
        held[name] = tensor.cpu()
        size += tensor.nbytes
        if size > SHARD_BYTES:
            total, size = total + _write_shard(directory, held, places), 0
    total += _write_shard(directory, held, places)
    (directory / INDEX_FILE).write_text(json.dumps({"weight_map": places}))
    return total


def stored_tensors(spec: ModelSpec, stage: Stage) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a checkpoint; stacked ones are cut apart."""
    device = stage.device
    one = replace(spec, n_layers=1)
    weights = dummy_weights(one, stage.dtype, 0, device)  # every layer is the same: its values do not matter
    for name, parts in layout(spec).items():
        kind = name.split(".")
        whole = weights[name if len(kind) == 1 else f"layers.0.{kind[-1]}"]
        for part, tensor in zip(parts, whole.split([p.shape[0] for p in parts]), strict=True):
            yield part.name, tensor.contiguous()


def _write_shard(directory: Path, held: dict[str, Tensor], places: dict[str, str]) -> int:
    path = directory / f"model-{len(set(places.values())):05}.safetensors"
    save_file({name: tensor.clone() for name, tensor in held.items()}, path, {"format": "pt"})
    places.update(dict.fromkeys(held, path.name))
    n_bytes = sum(tensor.nbytes for tensor in held.values())
    held.clear()
    return n_bytes
