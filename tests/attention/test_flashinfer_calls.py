"""The calls of the FlashInfer backend fit the signatures of the package, where that is installed."""

from __future__ import annotations

import inspect
import random
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    REAL = pytest.importorskip("flashinfer", reason="FlashInfer is not installed here")

from tests.attention import fake_flashinfer
from tests.attention.stage import CPU, attend, poisoned_store, random_job, random_qkv, spec_of, steps_of
from umbel.attention.flashinfer import FlashInferAttention


def test_calls_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    called = set()

    def checked(meaning: Callable[..., Any], real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            inspect.signature(real).bind(*given, **named)
            called.add(meaning.__name__)
            return meaning(*given, **named)

        return call

    wrapper, real = fake_flashinfer.BatchPrefillWithPagedKVCacheWrapper, REAL.BatchPrefillWithPagedKVCacheWrapper
    for name in ("__init__", "plan", "run"):
        monkeypatch.setattr(wrapper, name, checked(getattr(wrapper, name), getattr(real, name)))
    library = fake_flashinfer.module()
    library.merge_state_in_place = checked(library.merge_state_in_place, REAL.merge_state_in_place)
    monkeypatch.setitem(sys.modules, "flashinfer", library)
    spec, job = spec_of(2, 2, 16), random_job(random.Random(1), 6, 257, 5)
    backend = FlashInferAttention(spec, poisoned_store(spec, job.demand(16), 16), CPU)
    for _, step in steps_of(job, job.demand(16), 16, 60):
        q, k, v = random_qkv(spec, step.n_rows, torch.Generator(), backend.store.keys[0].dtype)
        backend.prepare(step)
        attend(backend, q, k, v)
    assert called == {"__init__", "plan", "run", "merge_state_in_place"}
