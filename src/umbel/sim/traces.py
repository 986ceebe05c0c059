"""Published traces as workloads: lengths as recorded, and invented tokens that are equal where the recorded ones
were."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from umbel.errors import UsageError
from umbel.ir.params import SamplingParams
from umbel.ir.workload import Workload

Ints = NDArray[np.int64]

KINDS = ("mooncake", "blocks16", "lengths", "agent")
BLOCKS = {"mooncake": 512, "blocks16": 16}
_OWN = 2**30  # from here on, tokens that no other row has


class Encoder(Protocol):
    """The part of a tokenizer that is used here."""

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text."""


@dataclass(frozen=True, slots=True)
class Trace:
    """A workload and the tokens that each row really generated (`lengths`, `[rows]`); `dropped` rows were empty or too
    long."""

    workload: Workload
    lengths: Ints
    dropped: int


def read_trace(path: Path, kind: str, longest: int, encoder: Encoder | None = None, rows: int | None = None) -> Trace:
    """Read a trace, its first `rows` at most; empty rows and those with more than `longest` tokens in all are dropped.

    Kinds: "mooncake" and "blocks16" have `hash_ids` of blocks (512, 16 tokens) with `input_length`, `output_length`;
    "lengths" has `prompt_tokens` and `output_tokens` alone, so nothing is shared; "agent" has text, as differences to
    earlier prompts, and needs an `encoder`. The limit of every row is the longest answer of all, as a job would set it.
    """
    if kind not in KINDS:
        raise UsageError(f"trace {kind!r}: must be one of {', '.join(KINDS)}")
    try:
        records = list(_first(_csv(path) if kind == "lengths" else _jsonl(path), rows))
        if kind == "agent":
            prompts, lengths = _agent(records, encoder)
        elif kind == "lengths":
            prompts, lengths = _alone(records)
        else:
            prompts, lengths = _blocks(records, BLOCKS[kind])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: cannot be read as a {kind} trace ({type(error).__name__}: {error})") from None
    return _trace(prompts, np.maximum(np.array(lengths, np.int64), 1), longest)


def _trace(prompts: list[NDArray[np.int32]], lengths: Ints, longest: int) -> Trace:
    fits = [i for i, p in enumerate(prompts) if len(p) and len(p) + lengths[i] <= longest]
    params = SamplingParams(temperature=0.0, max_tokens=int(lengths[fits].max(initial=1)))
    workload = Workload.of([prompts[i] for i in fits], params)  # type: ignore[misc]
    return Trace(workload, lengths[fits], len(prompts) - len(fits))


def _blocks(records: Iterable[Mapping[str, Any]], block: int) -> tuple[list[NDArray[np.int32]], list[int]]:
    """Prompts from blocks: a block is its id and zeros; a last part that no id covers belongs to the row alone."""
    prompts, lengths = [], []
    for row, record in enumerate(records):
        ids = np.array(record["hash_ids"], np.int32)
        covered = len(ids) * block
        tokens = np.zeros(max(record["input_length"], covered), np.int32)
        tokens[:covered:block] = ids + 1
        if record["input_length"] > covered:
            tokens[covered] = _OWN + row
        prompts.append(tokens[: record["input_length"]])
        lengths.append(int(record["output_length"]))
    return prompts, lengths


def _alone(records: Iterable[Mapping[str, Any]]) -> tuple[list[NDArray[np.int32]], list[int]]:
    prompts, lengths = [], []
    for row, record in enumerate(records):
        tokens = np.zeros(int(record["prompt_tokens"]), np.int32)
        tokens[:1] = _OWN + row
        prompts.append(tokens)
        lengths.append(int(record["output_tokens"]))
    return prompts, lengths


def _agent(records: Iterable[Mapping[str, Any]], encoder: Encoder | None) -> tuple[list[NDArray[np.int32]], list[int]]:
    """Prompts from sessions: prompt i is the first `keep_chars` characters of prompt `base` and then `suffix`."""
    if encoder is None:
        raise UsageError("an agent trace is text: name a model with a tokenizer")
    texts: list[str] = []
    session: list[str] = []
    current, outputs = None, []
    for record in records:
        if record["session"] != current:
            session, current = [], record["session"]
        base = session[record["base"]] if record["base"] >= 0 else ""
        session.append(base[: record["keep_chars"]] + record["suffix"])
        texts.append(session[-1])
        outputs.append(str(record["output"]))
    prompts = [np.array(ids, np.int32) for ids in encoder.encode(texts)]
    return prompts, [len(ids) for ids in encoder.encode(outputs)]


def _first(records: Iterator[Mapping[str, Any]], rows: int | None) -> Iterator[Mapping[str, Any]]:
    for i, record in enumerate(records):
        if i == rows:
            return
        yield record


def _jsonl(path: Path) -> Iterator[Mapping[str, Any]]:
    with _open(path) as lines:
        for line in lines:
            yield json.loads(line)


def _csv(path: Path) -> Iterator[Mapping[str, Any]]:
    with _open(path) as lines:
        yield from csv.DictReader(lines)


def _open(path: Path) -> IO[str]:
    return gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")
