"""How much memory the GPUs of a machine have free, as their driver says."""

from __future__ import annotations

import subprocess

_ASKED = ("nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits")
_SECONDS = 10.0


def free_gpu_memory() -> tuple[int, ...]:
    """Bytes that are free on each GPU; none where no driver says so. It is asked for by its own command: a process of
    Ray that holds no GPU does not see any through torch."""
    try:
        told = subprocess.run(_ASKED, capture_output=True, text=True, timeout=_SECONDS, check=True).stdout
        return tuple(int(line) * 2**20 for line in told.split())
    except (OSError, subprocess.SubprocessError, ValueError):
        return ()
