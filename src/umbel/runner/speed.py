"""How fast a device multiplies and copies, measured with torch: its ceilings where no data sheet names them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch

from umbel.cost.machine import Machine, gpu
from umbel.linear.pick import pick_linear

MATMUL = {"cpu": 256, "cuda": 4096}  # rows and columns of the products that are timed
COPY = {"cpu": 1 << 26, "cuda": 1 << 29}  # bytes


@dataclass(frozen=True, slots=True)
class Rate:
    """Per second, in the best of some runs and in the usual one."""

    best: float
    usual: float


def matmul_rate(dtype: torch.dtype, device: torch.device, seconds: float, size: int | None = None) -> Rate:
    """FLOP/s of large matmuls of random numbers, of `size` rows and columns where given (GPUs are faster on constants,
    which take less power)."""
    size = size or MATMUL[device.type]
    a = torch.randn((size, size), device=device).to(dtype)
    return _rate(lambda: a @ a, 2 * size**3, seconds, device)


def product_rate(dtype: torch.dtype, device: torch.device, seconds: float) -> Rate:
    """FLOP/s of the products by which models of a dtype are computed on a device."""
    size = MATMUL[device.type]
    a = torch.randn((size, size), device=device).to(dtype)
    product = pick_linear(dtype, device).convert(a)
    return _rate(lambda: product.apply(a), 2 * size**3, seconds, device)


def copy_rate(device: torch.device, seconds: float) -> Rate:
    """Bytes/s of large copies, read and written."""
    source = torch.ones(COPY[device.type], dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    return _rate(lambda: target.copy_(source), 2 * len(source), seconds, device)


def read_rate(device: torch.device, seconds: float) -> Rate:
    """Bytes/s of large sums, which only read."""
    source = torch.ones(COPY[device.type], dtype=torch.float32, device=device)
    return _rate(source.sum, source.nbytes, seconds, device)


def measure_gpu(device: torch.device, name: str, n_bytes: int, seconds: float = 0.1) -> Machine:
    """A GPU as it is: `name` is what it calls itself, `n_bytes` what is free on it. Overheads are other GPUs'."""
    wide, narrow = (matmul_rate(dtype, device, seconds).best for dtype in (torch.float32, torch.bfloat16))
    copy = copy_rate(device, seconds).best
    source = f"measured: float32 {wide / 1e12:.1f}, bfloat16 {narrow / 1e12:.1f} TFLOP/s, copy {copy / 1e9:,.0f} GB/s"
    return gpu(name, flops=wide, flops_16=narrow, rate=copy, n_bytes=n_bytes, source=source)


def _rate(act: Callable[[], object], amount: float, seconds: float, device: torch.device) -> Rate:
    _timed(act, device)  # the first run loads what later ones find ready
    times = [_timed(act, device)]
    stop = time.perf_counter() + seconds
    while time.perf_counter() < stop:
        times.append(_timed(act, device))
    return Rate(amount / min(times), amount / median(times))


def _timed(act: Callable[[], object], device: torch.device) -> float:
    began = time.perf_counter()
    act()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return max(time.perf_counter() - began, 1e-9)
