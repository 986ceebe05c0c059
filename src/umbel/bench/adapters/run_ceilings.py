"""Measures how fast the machine multiplies and reads right now, in place of an engine, so that slow periods show beside
the results."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import wire


def load(ask: Any) -> dict[str, Any]:
    """Set the number of threads."""
    import torch

    torch.set_num_threads(ask["threads"])
    return {"versions": {"torch": torch.__version__}}


def measure(ask: Any) -> dict[str, Any]:
    """Matmul FLOP/s in `dtype`, of plain and (where oneDNN has them) packed weights, and bytes/s of reading."""
    import torch

    dtype, seconds = getattr(torch, ask["dtype"]), ask["seconds"] / 3
    rows, inputs, outputs = 1024, 1024, 3072
    x, w = torch.randn(rows, inputs).to(dtype), torch.randn(outputs, inputs).to(dtype)
    big = torch.ones(1 << 28, dtype=torch.uint8).view(torch.int64)
    with torch.no_grad():
        rates = [_rate(lambda: torch.nn.functional.linear(x, w), seconds)]
        if torch.backends.mkldnn.is_available() and dtype is torch.bfloat16:
            packed = torch.ops.mkldnn._reorder_linear_weight(w, rows)
            rates.append(_rate(lambda: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], ""), seconds))
        reads = _rate(big.max, seconds)
    return {"matmul": 2 * rows * inputs * outputs * max(rates), "read": big.nbytes * reads}


def _rate(act: Callable[[], object], seconds: float) -> float:
    """Calls per second."""
    act()
    calls, begin = 0, time.perf_counter()
    while calls == 0 or time.perf_counter() - begin < seconds:
        act()
        calls += 1
    return calls / (time.perf_counter() - begin)


if __name__ == "__main__":
    wire.serve({"load": load, "measure": measure})
