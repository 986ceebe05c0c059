"""What goes over the pipes comes out as it went in, wherever the bytes are cut."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import numpy as np
import pytest

from umbel.cluster.frames import (
    Frame,
    Kind,
    decode_answer,
    decode_rows,
    encode_answer,
    encode_rows,
    frame,
    read_frame,
    take_frames,
)
from umbel.ir.logprobs import TokenLogprobs
from umbel.ir.params import SamplingParams
from umbel.ir.request import Completion, Output, RowError
from umbel.ir.workload import Workload


def test_rows() -> None:
    shared = SamplingParams(n=2, temperature=0.7, seed=-5, stop=("a", "\n"), stop_token_ids=(4, 9), logprobs=3)
    params = [shared, SamplingParams(), shared]
    workload = replace(Workload.of([[1, 2], [3], [4, 5, 6]], params, [7, 2**33, 0]), scope=np.array([5, 0, 5]))
    back = decode_rows(encode_rows(workload))
    for name in ("tokens", "offsets", "keys", "scope"):
        sent, got = getattr(workload, name), getattr(back, name)
        assert got.dtype == sent.dtype and np.array_equal(got, sent)
    assert back.params == params and back.params[0] is back.params[2]


def test_answers() -> None:
    """Answers survive with numbers to the last bit, infinite ones, and text that is not valid Unicode."""
    logprobs = (TokenLogprobs(3, -0.1, ((3, -0.1), (5, -math.inf))), TokenLogprobs(0, -1 / 3))
    first = Completion(0, 'ä\n"\ud800', (3, 0), "stop", stop_reason="x", logprobs=logprobs, cumulative_logprob=-1 / 7)
    for output in (
        Output(4, 9, (first, Completion(1, "", (), "length", stop_reason=7))),
        Output(0, 1, error=RowError("kv_capacity_exceeded", "too large", status=400)),
    ):
        assert decode_answer(encode_answer(output)) == output


@pytest.mark.parametrize("size", [1, 7, 18, 1000])
def test_frames_in_pieces(size: int) -> None:
    sent = [Frame(Kind.READY, b""), Frame(Kind.ANSWER, b"x" * 20, 2**40), Frame(Kind.DONE, b"{}", 3)]
    data = b"".join(frame(one.kind, one.data, one.lot) for one in sent)
    buffer, found = bytearray(), []
    for at in range(0, len(data), size):
        buffer += data[at : at + size]
        found += take_frames(buffer)
    assert found == sent and not buffer


def test_a_stream_that_ends() -> None:
    data = frame(Kind.ROWS, b"abc")
    stream = io.BytesIO(data + data[:-1])
    assert read_frame(stream) == Frame(Kind.ROWS, b"abc")
    assert read_frame(stream) is None and read_frame(io.BytesIO(data[:4])) is None
