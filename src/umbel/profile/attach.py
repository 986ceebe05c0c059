"""Attaches a recorder to a loaded model: the ceilings of its device, measured now, and how to wait for the device."""

from __future__ import annotations

from functools import partial

import torch

from umbel.cost.operators import Ceilings
from umbel.cost.quantised import as_kept
from umbel.engine.build import Model
from umbel.ir.spans import NO_SPANS, Spans
from umbel.profile.recorder import Recorder
from umbel.runner.speed import copy_rate, matmul_rate, read_rate

SIZES = {"cpu": (256, 512, 1024), "cuda": (4096, 8192)}  # of the products that are timed
SECONDS = 0.3  # for each figure


def spans_for(recorder: Recorder | None, model: Model) -> Spans:
    """The spans that a model's steps report to: `recorder`, once it has the device's ceilings, or none."""
    if recorder is None:
        return NO_SPANS
    on_gpu = model.device.type == "cuda"
    wait = partial(torch.cuda.synchronize, model.device) if on_gpu else None
    recorder.lap("loading the model", None)
    spec = as_kept(model.spec, model.config.linear, model.device.type == "cuda")
    recorder.meet(spec, model.config.dtype, partial(ceilings, model.dtype, model.device), wait)
    recorder.lap("measuring the machine", None)
    return recorder


def ceilings(dtype: torch.dtype, device: torch.device, seconds: float = SECONDS) -> Ceilings:
    """The best measured rates of products of some sizes, and of reading and copying."""
    sizes = SIZES[device.type]
    flops = max(matmul_rate(dtype, device, seconds / len(sizes), size).best for size in sizes)
    rate = max(read_rate(device, seconds).best, copy_rate(device, seconds).best)
    name = str(dtype).removeprefix("torch.")
    return Ceilings(flops, rate, f"large {name} products beside the run")
