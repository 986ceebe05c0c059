"""The part `floors`: how fast the device multiplies and reads, which every other figure is held against."""

from __future__ import annotations

import torch

from bench.gpu.stage import Stage
from umbel.runner.speed import copy_rate, matmul_rate, read_rate

SECONDS = 1.0  # of each, long enough that the clocks have settled


def measure_floors(stage: Stage) -> None:
    """Set the stage's ceilings: the usual rate of large products of random numbers (the best run of many is one before
    the chip has warmed up), and the better of copying and reading."""
    size, seconds = (64, 0.02) if stage.small else (8192, SECONDS)
    for dtype in dict.fromkeys((stage.dtype, torch.float32)):
        rate = matmul_rate(dtype, stage.device, seconds, size)
        name = str(dtype).removeprefix("torch.")
        stage.found.row(
            "Rates", what=f"{name} products of {size}", usual=rate.usual / 1e12, best=rate.best / 1e12, unit="TFLOP/s"
        )
        if dtype == stage.dtype:
            stage.matmul = rate.usual
    rates = {"copy": copy_rate, "read": read_rate}
    for name, measure in rates.items():
        rate = measure(stage.device, seconds)
        stage.found.row("Rates", what=name, usual=rate.usual / 1e9, best=rate.best / 1e9, unit="GB/s")
        stage.memory = max(stage.memory, rate.usual)
