"""Several devices as one machine: what a plan for tensor parallelism counts on."""

from __future__ import annotations

from dataclasses import replace

from umbel.config import EngineConfig
from umbel.cost.devices import joined, shared_by
from umbel.cost.machine import h200, machine_name, named
from umbel.ir.params import SamplingParams
from umbel.ir.spec import ModelSpec
from umbel.ir.workload import Workload
from umbel.plan.planner import make_plan

LLAMA_70B = ModelSpec("llama", 128_256, 8192, 80, 64, 8, 128, 28_672, 8192, 1e-5, 5e5, dtype="bfloat16")


def test_a_model_that_fits_no_single_gpu_fits_two() -> None:
    """141 GB of weights: one H200 has no room left for KV, two have; and they are not twice as fast."""
    workload = Workload.of([[i % 100, *range(200)] for i in range(64)], SamplingParams(max_tokens=64))
    config = EngineConfig("x", kv_tokens=20_000, chunk=2048)
    one, two = (make_plan(workload, LLAMA_70B, config, joined(h200(), n)) for n in (1, 2))
    assert one.estimates.seconds[1] / 2 < two.estimates.seconds[1] < one.estimates.seconds[1]
    free = [joined(h200(), n).memory_bytes - 141 * 10**9 for n in (1, 2)]
    assert free[0] <= 0 < free[1]
    assert two.decision("machine").value == "2 x h200"


def test_what_they_learn_is_theirs() -> None:
    names = {machine_name(joined(h200(), n)) for n in (1, 2, 4)}
    assert len(names) == 3 and joined(h200(), 1) == h200()


def test_processes_of_a_processor_have_no_more_than_it_has() -> None:
    this = replace(h200(), device="cpu")
    assert joined(this, 2) == this
    assert shared_by(this, 2).memory_bytes == this.memory_bytes // 2 and shared_by(h200(), 2) == h200()
    half = shared_by(this, 2)
    assert joined(half, 2) == half  # ranks of one of two replicas


def test_what_a_machine_is_called_decides_nothing() -> None:
    """A GPU may be called "this", and the part of a processor that a replica has is called after the processor."""
    gpu, processor = replace(h200(), name="this"), replace(h200(), name="h200", device="cpu")
    assert shared_by(gpu, 2) == gpu and joined(gpu, 2).memory_bytes == 2 * gpu.memory_bytes
    assert joined(processor, 2) == processor and shared_by(processor, 2).memory_bytes == processor.memory_bytes // 2
    assert not shared_by(processor, 2).on_gpu and joined(gpu, 2).on_gpu


def test_machines_that_are_known_say_what_they_are() -> None:
    assert [named(name).device for name in ("this", "h200", "a100")] == ["cpu", "cuda", "cuda"]
