"""Ceilings of devices: measured where no data sheet names them, and kept apart from those that one does."""

from __future__ import annotations

import pytest
import torch

from umbel.cost.machine import machine_name
from umbel.engine import device
from umbel.engine.device import machine_of
from umbel.runner.speed import copy_rate, matmul_rate, measure_gpu, product_rate

CPU = torch.device("cpu")


def test_rates_are_plausible() -> None:
    products = [product_rate(dtype, CPU, 0.01) for dtype in (torch.float32, torch.bfloat16)]
    for rate in (matmul_rate(torch.float32, CPU, 0.01), copy_rate(CPU, 0.01), *products):
        assert 1e6 < rate.usual <= rate.best < 1e16


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NVIDIA H200", "h200"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA L40", "NVIDIA L40"),
        ("NVIDIA A10G", "NVIDIA A10G"),
        ("NVIDIA H100 PCIe", "NVIDIA H100 PCIe"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA GeForce RTX 4090 Laptop GPU"),
        ("NVIDIA GH200 480GB", "NVIDIA GH200 480GB"),
    ],
)
def test_a_gpu_is_not_taken_for_another(monkeypatch: pytest.MonkeyPatch, name: str, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (40 * 10**9, 48 * 10**9))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    monkeypatch.setattr(device, "measure_gpu", lambda device, name, free: measure_gpu(CPU, name, free, 0.01))
    machine = machine_of(torch.device("cuda"))
    assert (machine.name, machine.memory_bytes) == (expected, 40 * 10**9)
    assert machine_name(machine) == expected and machine.on_gpu
    assert ("measured" in machine.source) == (expected == name)
