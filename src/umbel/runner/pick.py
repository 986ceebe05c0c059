"""Whether steps of a model are recorded on the device it is on."""

from __future__ import annotations

import os

from umbel.attention.base import AttentionBackend
from umbel.attention.capabilities import capability_of
from umbel.models.decoder import Decoder
from umbel.runner.ahead import RecordedSteps

VARIABLE = "UMBEL_GRAPHS"


def pick_graphs(decoder: Decoder, attention: AttentionBackend) -> RecordedSteps | None:
    """CUDA graphs, where steps of this attention can be recorded; none where the variable UMBEL_GRAPHS is 0."""
    if decoder.spec.hosted is not None:
        return None  # modules of transformers read from the device in the middle of a step
    if decoder.spec.recurrences:
        return None  # where states lie differs from step to step
    if os.environ.get(VARIABLE) == "0" or not capability_of(attention.name).records:
        return None
    from umbel.runner.graphs import CudaGraphs, DecodeGraphs  # here, as Triton is not everywhere

    return DecodeGraphs(decoder, attention, CudaGraphs())
