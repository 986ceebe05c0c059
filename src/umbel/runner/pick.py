"""Whether steps of a model are recorded on the device it is on."""

from __future__ import annotations

import os

from umbel.attention.base import AttentionBackend
from umbel.kernels.dispatch import gpu_kernels
from umbel.models.decoder import Decoder
from umbel.runner.ahead import LogitGraphs

VARIABLE = "UMBEL_GRAPHS"


def pick_graphs(decoder: Decoder, attention: AttentionBackend) -> LogitGraphs | None:
    """CUDA graphs where attention is Triton's; none where the environment variable UMBEL_GRAPHS is 0."""
    if os.environ.get(VARIABLE) == "0" or gpu_kernels() is None:
        return None
    from umbel.attention.triton import TritonAttention  # Triton is not everywhere
    from umbel.runner.graphs import CudaGraphs, DecodeGraphs

    return DecodeGraphs(decoder, attention, CudaGraphs()) if isinstance(attention, TritonAttention) else None
