"""Which weights a machine keeps in 4 bits once a model is loaded, and the price of the model as it is kept."""

from __future__ import annotations

from dataclasses import replace

from umbel.config import EngineConfig
from umbel.cost.calibration import Calibration
from umbel.cost.machine import Machine
from umbel.cost.roofline import Price
from umbel.cost.shape import Shape
from umbel.ir.int4_format import LOADING
from umbel.ir.spec import ModelSpec


def as_kept(spec: ModelSpec, linear: str, on_gpu: bool) -> ModelSpec:
    """The spec with weights as they are kept under EngineConfig.linear. A processor keeps int4 weights where that was
    asked for, else the floats that they stand for; a GPU has mixtures of experts in floats only."""
    by_nibbles = linear in ("int4", "int4-head8")
    form = spec.quantization or (LOADING if by_nibbles else None)
    if form is None or (spec.experts and on_gpu) or not (on_gpu or by_nibbles):
        return replace(spec, quantization=None)
    return replace(spec, quantization=form if on_gpu else replace(form, on_cpu=True))


def price_of(spec: ModelSpec, config: EngineConfig, machine: Machine, calibration: Calibration | None = None) -> Price:
    """The price of a model on a machine under the settings of `config`, whose dtype must be decided."""
    kept = as_kept(spec, config.linear, machine.on_gpu)
    shape = Shape.of(kept, config.dtype, config.kv_cache_dtype)
    return Price(shape, machine, config.dtype, spec.n_layers, calibration)
