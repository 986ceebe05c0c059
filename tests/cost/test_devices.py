"""Several devices as one machine: what a plan for tensor parallelism counts on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from umbel.config import EngineConfig
from umbel.cost.cards import CARDS, NAMES, counted, named
from umbel.cost.devices import joined, machine_of, shared_by
from umbel.cost.machine import machine_name
from umbel.engine.device import sheet_of
from umbel.errors import UsageError
from umbel.ir.params import SamplingParams
from umbel.ir.spec import ModelSpec
from umbel.ir.workload import Workload
from umbel.plan.planner import make_plan

LLAMA_70B = ModelSpec("llama", 128_256, 8192, 80, 64, 8, 128, 28_672, 8192, 1e-5, 5e5, dtype="bfloat16")


def test_a_model_that_fits_no_single_gpu_fits_two() -> None:
    """141 GB of weights: one H200 has no room left for KV, two have; and they are not twice as fast."""
    workload = Workload.of([[i % 100, *range(200)] for i in range(64)], SamplingParams(max_tokens=64))
    config = EngineConfig("x", kv_tokens=20_000, chunk=2048)
    one, two = (make_plan(workload, LLAMA_70B, config, joined(named("h200"), n)) for n in (1, 2))
    assert one.estimates.seconds[1] / 2 < two.estimates.seconds[1] < one.estimates.seconds[1]
    free = [joined(named("h200"), n).memory_bytes - 141 * 10**9 for n in (1, 2)]
    assert free[0] <= 0 < free[1]
    assert two.decision("machine").value == "2 x h200"


def test_what_they_learn_is_theirs() -> None:
    names = {machine_name(joined(named("h200"), n)) for n in (1, 2, 4)}
    assert len(names) == 3 and joined(named("h200"), 1) == named("h200")


def test_processes_of_a_processor_have_no_more_than_it_has() -> None:
    this = replace(named("h200"), device="cpu")
    assert joined(this, 2) == this
    assert shared_by(this, 2).memory_bytes == this.memory_bytes // 2 and shared_by(named("h200"), 2) == named("h200")
    half = shared_by(this, 2)
    assert joined(half, 2) == half  # ranks of one of two replicas


def test_what_a_machine_is_called_decides_nothing() -> None:
    """A GPU may be called "this", and the part of a processor that a replica has is called after the processor."""
    gpu, processor = replace(named("h200"), name="this"), replace(named("h200"), name="h200", device="cpu")
    assert shared_by(gpu, 2) == gpu and joined(gpu, 2).memory_bytes == 2 * gpu.memory_bytes
    assert joined(processor, 2) == processor and shared_by(processor, 2).memory_bytes == processor.memory_bytes // 2
    assert not shared_by(processor, 2).on_gpu and joined(gpu, 2).on_gpu


def test_machines_that_are_known_say_what_they_are() -> None:
    assert [named(name).device for name in NAMES] == ["cpu", *["cuda"] * len(CARDS)]
    h100 = named("h100")
    assert (h100.matmul_flops_16, h100.memory_rate, h100.memory_bytes) == (989e12, 3.35e12, 80 * 10**9)
    assert "data sheet" in h100.source and "bfloat16" in h100.dtypes


@pytest.mark.parametrize("name", CARDS)
def test_figures_of_cards_are_of_dense_products(name: str) -> None:
    """A sheet's figure with sparsity is twice the dense one. Matrix units are 16 times as fast as float32 in the large
    accelerators, 4 times in the small ones, and 2 times in those for games."""
    one = named(name)
    ratio = one.matmul_flops_16 / one.matmul_flops
    assert min(abs(ratio / usual - 1) for usual in (2, 4, 16)) < 0.08


@pytest.mark.parametrize(
    ("name", "count", "kind"), [("2xh100", 2, "h100"), ("rtx4090", 1, "rtx4090"), ("8xrtx4090", 8, "rtx4090")]
)
def test_several_cards_are_counted_before_their_name(name: str, count: int, kind: str) -> None:
    assert counted(name) == (count, kind)
    assert machine_of(name).memory_bytes == count * named(kind).memory_bytes


@pytest.mark.parametrize("name", ["0xh100", "2000xh100", "999999999xh100", "2xthis", "2xh10", "x", "-1xh100", "h10"])
def test_machines_that_do_not_exist_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="machine="):
        machine_of(name)


@pytest.mark.parametrize(
    ("device", "sheet"),
    [
        ("NVIDIA H200", "h200"),
        ("NVIDIA GH200 480GB", None),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA A10", "a10"),
        ("NVIDIA A10G", None),
        ("NVIDIA L4", "l4"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA L40", None),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
    ],
)
def test_devices_are_known_by_what_they_are_called(device: str, sheet: str | None) -> None:
    assert sheet_of(device) == sheet
