"""Which kernels are chosen, and that it is said why."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tests.parameters import some_of
from umbel.kernels import dispatch, native
from umbel.kernels.native import calls
from umbel.kernels.native.calls import INSTRUCTION_SETS

BUILT = pytest.mark.skipif(not INSTRUCTION_SETS, reason="no compiled kernels here")


def test_turned_off() -> None:
    choice = dispatch.choose("0")
    assert choice.native is None and choice.name == "torch" and "UMBEL_NATIVE=0" in choice.reason


@BUILT
def test_the_best_is_taken() -> None:
    for asked in ("", "1"):
        choice = dispatch.choose(asked)
        assert choice.name == INSTRUCTION_SETS[0] and "the best" in choice.reason


@BUILT
def test_by_name() -> None:
    assert dispatch.choose("generic").name == "generic"
    wrong = dispatch.choose("altivec")
    assert wrong.native is None and "not on this processor" in wrong.reason


def test_without_the_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "INSTRUCTION_SETS", ())
    choice = dispatch.choose("")
    assert choice.native is None and "compiler" in choice.reason


def test_kernels_of_older_sources_are_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after an update of a checkout that was installed in place."""
    monkeypatch.setattr(native, "_umbel", SimpleNamespace(instruction_sets=lambda: ["generic"]), raising=False)
    found = runpy.run_path(str(calls.__file__))
    assert found["INSTRUCTION_SETS"] == ()
    assert found["WHY_NOT"] == f"they are of version 1, this checkout needs {calls.INTERFACE}: build them again"


@pytest.mark.parametrize("value", some_of(["0"], [""]))
def test_the_variable_is_read(value: str) -> None:
    code = "from umbel.kernels.dispatch import kernels; print(kernels().name)"
    environment = os.environ | {"UMBEL_NATIVE": value}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == (INSTRUCTION_SETS[0] if INSTRUCTION_SETS and not value else "torch")


@BUILT
def test_threads_of_their_own() -> None:
    """As where torch brings no OpenMP: the same bits, from calls large enough to be shared."""
    code = """if True:
        import torch
        from umbel.kernels.dispatch import kernels
        torch.set_num_threads(3)
        native = kernels().native
        assert native.threads == "threads", native.threads
        x = torch.randn(4000, 64, generator=torch.Generator().manual_seed(0))
        whole = [native.gated_silu(x) for _ in range(20)]
        torch.set_num_threads(1)
        assert all(torch.equal(native.gated_silu(x), w) for w in whole)"""
    environment = os.environ | {"UMBEL_OPENMP": "0", "UMBEL_NATIVE": ""}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=600)


@BUILT
def test_threads_are_those_of_torch() -> None:
    """Two thread pools would take turns spinning; on Linux torch always brings an OpenMP that both can use."""
    if sys.platform == "linux":
        native = dispatch.choose("").native
        assert native is not None and native.threads == "openmp"
