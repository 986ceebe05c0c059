"""Which backend serves which case, what a backend that cannot is refused for, and that prices decide when known."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import MappingProxyType

import pytest
import torch

from tests.attention import fake_flashinfer
from tests.attention.stage import CPU, mixed_spec, poisoned_store, spec_of
from umbel.attention import capabilities
from umbel.attention.capabilities import Case, backends, choose
from umbel.attention.flashinfer import FlashInferAttention
from umbel.attention.grid import GridAttention
from umbel.attention.pick import check_attention, pick_attention
from umbel.config import EngineConfig, choices
from umbel.cost.attention import PRICES, AttentionPrice
from umbel.errors import UsageError
from umbel.ir.kv_shape import KVShape

HOPPER = Case("cuda", "bfloat16", (128,), fp8_instructions=True)
AMPERE = replace(HOPPER, fp8_instructions=False)
PROCESSOR = Case("cpu", "float32", (64,))


@pytest.mark.parametrize(
    ("case", "name"),
    [
        (HOPPER, "triton"),
        (replace(HOPPER, fp8_kv=True), "triton"),
        (replace(AMPERE, fp8_kv=True), "torch"),
        (replace(HOPPER, absent={"triton": "gone"}), "torch"),
        (PROCESSOR, "native"),
        (replace(PROCESSOR, fp8_kv=True), "torch"),
        (replace(PROCESSOR, absent={"native": "gone"}), "torch"),
        (replace(PROCESSOR, dtype="float16"), "torch"),
        (replace(PROCESSOR, device="mps"), "torch"),
        (replace(PROCESSOR, selects=True), "native"),
        (replace(HOPPER, selects=True), "triton"),
    ],
)
def test_the_usual_backend(case: Case, name: str) -> None:
    """As no price but Triton's is known, nothing else is taken."""
    choice = choose(case)
    assert choice.name == name
    assert {name, *dict(choice.others)} == set(backends()) and all(dict(choice.others).values())


@pytest.mark.parametrize(
    ("case", "why"),
    [
        (PROCESSOR, "runs on cuda, and this is cpu"),
        (replace(HOPPER, dtype="float32"), "computes in float16 and bfloat16, and the model in float32"),
        (replace(HOPPER, head_dims=(80,)), "takes heads of 64, 128, 256, and the model has 80"),
        (replace(HOPPER, fp8_kv=True), "reads no keys and values in fp8"),
        (replace(HOPPER, absent={"flashinfer": "flashinfer-python is not installed"}), "is not installed"),
    ],
)
def test_flashinfer_is_refused_for_what_it_lacks(case: Case, why: str) -> None:
    with pytest.raises(UsageError, match=rf"attention_backend='flashinfer' cannot serve this model here: .*{why}"):
        choose(case, "flashinfer")
    assert why in dict(choose(case).others)["flashinfer"]


@pytest.mark.parametrize("window", [False, True])
def test_flashinfer_serves_by_name(window: bool) -> None:
    case = replace(HOPPER, window=window)
    assert choose(case, "flashinfer").name == "flashinfer"
    assert dict(choose(case).others)["flashinfer"] == "its price is not measured on a GPU yet"


def test_windows_are_refused_where_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {name: replace(can, windows=name != "flashinfer") for name, can in backends().items()}
    monkeypatch.setattr(capabilities, "backends", lambda: rows)
    with pytest.raises(UsageError, match="no sliding windows"):
        choose(replace(HOPPER, window=True), "flashinfer")


PLAIN = KVShape(4, 2, 64, 64, 0.125)


@pytest.mark.parametrize(
    ("shapes", "feature", "why"),
    [
        ((PLAIN, replace(PLAIN, window=50)), "mixed", "takes layers that are all alike, and those of the model differ"),
        ((replace(PLAIN, cap=50.0),), "caps", "caps no scores, and the model does"),
        ((replace(PLAIN, sinks=True),), "sinks", "has no sinks, and heads of the model have one"),
        ((replace(PLAIN, key_dim=128),), "unequal", "takes values of the size of keys"),
        ((replace(PLAIN, values_in_keys=True),), "unequal", "takes values of the size of keys"),
    ],
)
def test_flashinfer_is_refused_for_features(shapes: tuple[KVShape, ...], feature: str, why: str) -> None:
    case = Case.of(mixed_spec(*shapes), torch.bfloat16, CPU, "auto")
    assert case.features == (feature,)
    with pytest.raises(UsageError, match=f"attention_backend='flashinfer' cannot serve this model here: it {why}"):
        choose(replace(case, device="cuda", absent={}), "flashinfer")
    assert choose(replace(case, device="cuda", absent={})).name == "triton"
    assert choose(case).name in ("native", "torch")


@pytest.mark.parametrize("name", ["torch", "flashinfer"])
def test_backends_that_read_whole_paths_are_refused_where_something_selects(name: str) -> None:
    device = backends()[name].devices
    with pytest.raises(UsageError, match=f"attention_backend='{name}' cannot serve.*it reads whole paths"):
        choose(replace(HOPPER if "cuda" in device else PROCESSOR, selects=True), name)


def test_flash_attention_is_always_refused() -> None:
    assert "whole pages of 256 tokens" in dict(choose(HOPPER).others)["flash-attention"]
    assert "flash-attention" not in choices("attention_backend")


@pytest.mark.parametrize(
    ("price", "name"),
    [
        (AttentionPrice(0.9, 0.8, 0.95), "flashinfer"),
        (AttentionPrice(0.5, 0.5, 1.1), "triton"),
        (AttentionPrice(0.5, None, 0.5), "triton"),
        (AttentionPrice(1.0, 1.0, 1.0), "triton"),
    ],
)
def test_the_cheaper_one_is_taken_when_all_its_prices_are_known(
    monkeypatch: pytest.MonkeyPatch, price: AttentionPrice, name: str
) -> None:
    monkeypatch.setattr(capabilities, "PRICES", MappingProxyType({**PRICES, "flashinfer": price}))
    assert choose(HOPPER).name == name
    assert choose(HOPPER, "triton").name == "triton"
    assert choose(replace(HOPPER, head_dims=(80,))).name == "triton", "price does not make up for what is lacking"


@pytest.mark.parametrize(
    ("found", "fits"), [("0.6.9", False), ("0.6.11", True), ("0.6.11.post2", True), ("0.10", True)]
)
def test_versions_are_compared_as_numbers(monkeypatch: pytest.MonkeyPatch, found: str, fits: bool) -> None:
    monkeypatch.setattr(capabilities, "version", lambda _: found)
    absent = capabilities.absences()
    assert ("flashinfer" not in absent) == fits
    assert fits or absent["flashinfer"] == f"flashinfer-python {found} is here, and 0.6.11 is needed"


def test_a_model_is_refused_before_it_is_loaded() -> None:
    spec = spec_of(2, 2, 64)
    for name in ("flashinfer", "triton"):
        with pytest.raises(UsageError, match=rf"{name}.*runs on cuda, and this is cpu"):
            check_attention(EngineConfig("demo", attention_backend=name), spec, torch.bfloat16, CPU)
    assert check_attention(EngineConfig("demo", attention_backend="torch"), spec, torch.bfloat16, CPU).name == "torch"
    with pytest.raises(UsageError, match=r"attention_backend='flashinfr'.*did you mean 'flashinfer'"):
        EngineConfig("demo", attention_backend="flashinfr")


def test_what_is_chosen_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flashinfer", fake_flashinfer.module())
    spec = spec_of(2, 2, 64)
    store = poisoned_store(spec, 2, 16, torch.bfloat16)
    assert isinstance(pick_attention(spec, store, CPU, "torch"), GridAttention)
    # As if the processor were a GPU that has FlashInfer.
    monkeypatch.setattr(Case, "of", lambda *_, **__: HOPPER)
    assert isinstance(pick_attention(spec, store, CPU, "flashinfer"), FlashInferAttention)
