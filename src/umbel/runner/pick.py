"""Whether steps of a model are recorded on the device it is on."""

from __future__ import annotations

import os

from umbel.attention.base import AttentionBackend
from umbel.attention.capabilities import capability_of
from umbel.models.decoder import Decoder
from umbel.runner.recorded import RecordedSteps

VARIABLE = "UMBEL_GRAPHS"


def pick_recorded(decoder: Decoder, attention: AttentionBackend) -> RecordedSteps | None:
    """Steps that are recorded on the decoder's device, where those of this attention can be."""
    return (pick_tapes if decoder.device.type == "cpu" else pick_graphs)(decoder, attention)


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


def pick_tapes(decoder: Decoder, attention: AttentionBackend) -> RecordedSteps | None:
    """Calls of compiled kernels, where attention is one of them."""
    if decoder.spec.hosted is not None or decoder.spec.recurrences or os.environ.get(VARIABLE) == "0":
        return None  # as above
    from umbel.attention.native import NativeAttention
    from umbel.runner.tapes import TapedSteps

    return TapedSteps(decoder, attention) if isinstance(attention, NativeAttention) else None
