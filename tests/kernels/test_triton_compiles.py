"""The Triton kernels are not only right in the interpreter: they compile for the GPUs they are for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed here")

ROOT = Path(__file__).parents[2]


@pytest.mark.nightly
def test_every_kernel_compiles_for_hopper(tmp_path: Path) -> None:
    """In a process of its own, since this one may interpret them."""
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    env |= {"TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "tests.kernels.compile_triton"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    kernels = {line.split()[0] for line in done.stdout.splitlines()}
    assert kernels == {
        "_attend", "_merge", "_rms_norm", "_gated_silu", "_norm_and_rotate", "_largest", "_draw", "_multiply",
        "_multiply_int4", "_widen_int4", "_gated_clamped", "_weighted_sum", "_round_rows",
    }  # fmt: skip
