"""What passes through the pipes between a job and its replicas: frames of JSON and arrays, nothing that could be
code."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any, BinaryIO

import numpy as np

from umbel.ir.distinct import Distinct
from umbel.ir.logprobs import TokenLogprobs
from umbel.ir.params import SamplingParams
from umbel.ir.request import Completion, Output, RowError
from umbel.ir.workload import Workload

HEAD = struct.Struct("<BQQ")  # kind, lot, bytes that follow


class Kind(IntEnum):
    """The kind of a frame.

    To a replica: rows to run, and rows of a lot that are not wanted any more. From it: that it is loaded, that it wants
    rows, an answer, its totals so far, that the rows are done, an error that stops the job, and a heartbeat with the
    progress of its work.
    """

    ROWS = 0
    READY = 1
    ANSWER = 2
    STATS = 3
    DONE = 4
    FAILED = 5
    BEAT = 6
    WANT = 7
    DROP = 8


@dataclass(frozen=True, slots=True)
class Frame:
    """A message. `lot` numbers rows that are sent together; what is said of them repeats the number."""

    kind: Kind
    data: bytes
    lot: int = 0


def frame(kind: Kind, data: bytes = b"", lot: int = 0) -> bytes:
    """The bytes of one frame."""
    return HEAD.pack(kind, lot, len(data)) + data


def read_frame(stream: BinaryIO) -> Frame | None:
    """The next frame of a stream; None where it ends, even inside a frame."""
    head = stream.read(HEAD.size)
    if len(head) < HEAD.size:
        return None
    kind, lot, size = HEAD.unpack(head)
    data = stream.read(size)
    return Frame(Kind(kind), data, lot) if len(data) == size else None


def take_frames(buffer: bytearray) -> list[Frame]:
    """Remove the whole frames at the beginning of a buffer and return them."""
    found, at = [], 0
    while len(buffer) - at >= HEAD.size:
        kind, lot, size = HEAD.unpack_from(buffer, at)
        end = at + HEAD.size + size
        if len(buffer) < end:
            break
        found.append(Frame(Kind(kind), bytes(buffer[at + HEAD.size : end]), lot))
        at = end
    del buffer[:at]
    return found


def encode_rows(workload: Workload) -> bytes:
    """A workload as an npz archive; parameters that rows share are written once."""
    distinct = Distinct.of(workload.params)
    params = json.dumps([asdict(p) for p in distinct.objects]).encode()
    buffer = io.BytesIO()
    np.savez(
        buffer,
        tokens=workload.tokens,
        offsets=workload.offsets,
        keys=workload.keys,
        draw_keys=workload.noise_keys,
        which=distinct.which,
        scope=np.zeros(len(workload), np.int64) if workload.scope is None else workload.scope,
        params=np.frombuffer(params, np.uint8),
    )
    return buffer.getvalue()


def decode_rows(data: bytes) -> Workload:
    """The workload that `encode_rows` packed."""
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        found = dict(arrays)
    objects = [SamplingParams(**_tuples(values)) for values in json.loads(found["params"].tobytes())]
    params = [objects[i] for i in found["which"].tolist()]
    return Workload(found["tokens"], found["offsets"], params, found["keys"], found["draw_keys"], found["scope"])


def encode_places(places: Iterable[int]) -> bytes:
    """Places of rows in a lot, as JSON."""
    return json.dumps(list(places)).encode()


def decode_places(data: bytes) -> list[int]:
    """The places that `encode_places` packed."""
    found: list[int] = json.loads(data)
    return found


def encode_answer(output: Output) -> bytes:
    """An answer as JSON; numbers survive exactly, infinite ones too."""
    return json.dumps(asdict(output)).encode()


def decode_answer(data: bytes) -> Output:
    """The answer that `encode_answer` packed."""
    given = json.loads(data)
    error = None if given["error"] is None else RowError(**given["error"])
    scores = given["prompt_logprobs"]
    told = None if scores is None else tuple(None if one is None else _logprobs(one) for one in scores)
    vector, outputs = given["vector"], tuple(map(_completion, given["outputs"]))
    return Output(given["row"], given["prompt_tokens"], outputs, error, told, vector and tuple(vector))


def _completion(values: dict[str, Any]) -> Completion:
    logprobs = values.pop("logprobs")
    told = None if logprobs is None else tuple(_logprobs(one) for one in logprobs)
    return Completion(**_tuples(values), logprobs=told)


def _logprobs(values: dict[str, Any]) -> TokenLogprobs:
    return TokenLogprobs(values["token_id"], values["logprob"], tuple((int(i), float(p)) for i, p in values["top"]))


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
