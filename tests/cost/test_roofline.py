"""Machines and the roofline: ceilings, intervals, and names that are wrong."""

from __future__ import annotations

import numpy as np
import pytest

from tests.plan.workloads import MACHINE
from umbel.cost.calibration import FEATURES, features
from umbel.cost.cards import named
from umbel.cost.machine import Machine
from umbel.cost.roofline import CEILING, POOR, Load, Price
from umbel.cost.shape import Shape
from umbel.errors import UsageError
from umbel.ir.spec import ModelSpec

LLAMA3 = ModelSpec("llama", 128256, 4096, 32, 32, 8, 128, 14336, 8192, 1e-5, 5e5)


def price(machine: Machine, dtype: str = "bfloat16") -> Price:
    return Price(Shape.of(LLAMA3, dtype), machine, dtype, LLAMA3.n_layers)


def test_a_decode_is_bound_by_the_weights() -> None:
    one = price(named("h200"))
    seconds = float(one.each(Load.one(tokens=1, samples=1, pairs=1000, kv_read=1000), CEILING)[0])
    weights = one.shape.layer_bytes + one.shape.head_bytes
    assert seconds == pytest.approx((weights + 1001 * one.shape.kv_bytes) / 4.8e12)


def test_a_prefill_is_bound_by_arithmetic() -> None:
    one = price(named("h200"))
    load = Load.one(tokens=8192, samples=1, pairs=8192 * 4096, kv_read=8192)
    flops = 8192 * one.shape.token_flops + 8192 * 4096 * one.shape.pair_flops + one.shape.head_flops
    assert float(one.each(load, CEILING)[0]) == pytest.approx(flops / 989e12)
    assert float(price(named("h200"), "float32").each(load, CEILING)[0]) == pytest.approx(flops / 67e12)


def test_interval_is_ordered_and_adds_up() -> None:
    one = price(named("h200"))
    load = Load(*(np.array(v, float) for v in ([3, 2.5], [100, 1], [1, 1], [5000, 50], [900, 50])))
    total = one.total(load)
    assert 0 < total.low < total.expected < total.high
    assert total.expected == pytest.approx(float((one.each(load) * load.steps).sum()))


@pytest.mark.parametrize("machine", [named("h200"), MACHINE], ids=["gpu", "processor"])
@pytest.mark.parametrize("tokens", [1, 64, 512])
@pytest.mark.parametrize("context", [0, 100])
def test_fits_start_within_what_the_ceilings_allow(machine: Machine, tokens: int, context: int) -> None:
    """Steps of decodes over short contexts: the prior lies in the interval of a plan that has no calibration."""
    one = price(machine)
    load = Load.one(tokens=tokens, samples=tokens, pairs=tokens * context, kv_read=tokens * context)
    low, high = (float(one.each(load, efficiency)[0]) for efficiency in (CEILING, POOR))
    assert low < float(features(load)[0] @ one.prior()) < high


@pytest.mark.parametrize("machine", [named("h200"), MACHINE], ids=["gpu", "processor"])
def test_reading_keys_and_values_is_priced_by_how_often_they_pass_through_memory(machine: Machine) -> None:
    """At least once; gathering reads them, writes them side by side and reads them again: not more than a few times."""
    one = price(machine)
    read = one.prior()[FEATURES.index("kv read")]
    once = one.shape.kv_bytes / machine.memory_rate
    assert once < read < 8 * once


def test_machines_have_names() -> None:
    assert named("h200").flops("bfloat16") == 989e12
    assert named("a100").with_memory(10).memory_bytes == 10
    with pytest.raises(UsageError, match=r"did you mean 'h200'\?"):
        named("h20")
