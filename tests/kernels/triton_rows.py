"""Has the processor run the Triton kernels of rows and experts, in the interpreter."""

from __future__ import annotations

import pytest


def use_triton_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on in this test; skips it where Triton is not installed."""
    rows = pytest.importorskip("umbel.kernels.triton.rows", reason="Triton is not installed here").TritonRows()
    for module in ("rows", "experts"):
        monkeypatch.setattr(f"umbel.kernels.{module}.kernels_for", lambda *t: rows if rows.takes(*t) else None)
