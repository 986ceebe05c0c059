"""Builds workloads from real task files: one meeting with all its questions, five-shot MMLU, Banking77."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from umbel.bench.workloads import Row
from umbel.errors import InputError

Encode = Callable[[Sequence[str]], Sequence[Sequence[int]]]

MEETING_TOKENS = 14_000  # of the transcript that is chosen: the one nearest to this length


def meeting(folder: Path, encode: Encode) -> list[Row]:
    """QMSum: all questions about one long meeting, its transcript first; 32 tokens out."""
    meetings = _read(folder / "qmsum.jsonl.gz")
    texts = [str(record["transcript"]) for record in meetings]
    lengths = [len(ids) for ids in encode(texts)]
    at = min(range(len(texts)), key=lambda i: abs(lengths[i] - MEETING_TOKENS))
    questions = [query["query"] for query in meetings[at]["queries"]]
    prompts = [f"{texts[at]}\n\nQuestion: {question}\nAnswer:" for question in questions]
    return [Row(ids, 32) for ids in encode(prompts)]


def mmlu(folder: Path, encode: Encode) -> list[Row]:
    """MMLU with five shots of the same subject first; one token out."""
    subjects: dict[str, list[Mapping[str, Any]]] = {}
    for record in _read(folder / "mmlu_test.jsonl.gz"):
        subjects.setdefault(record["subject"], []).append(record)
    prompts = []
    for subject, records in subjects.items():
        head = f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"
        head += "".join(f"{_choices(shot)} {'ABCD'[shot['answer']]}\n\n" for shot in records[:5])
        prompts += [head + _choices(record) for record in records[5:]]
    return [Row(ids, 1) for ids in encode(prompts)]


def banking(folder: Path, encode: Encode) -> list[Row]:
    """Banking77 with the list of labels first; six tokens out, what a label takes."""
    records = _read(folder / "banking77_test.jsonl.gz")
    labels = sorted({record["category"] for record in records})
    head = "Classify the customer's message into one of these labels:\n" + "\n".join(labels) + "\n\n"
    return [Row(ids, 6) for ids in encode([f"{head}Message: {record['text']}\nLabel:" for record in records])]


TASKS: Mapping[str, Callable[[Path, Encode], list[Row]]] = MappingProxyType(
    {"L3": meeting, "MMLU": mmlu, "BANKING77": banking}
)


def _choices(record: Mapping[str, Any]) -> str:
    options = "\n".join(f"{letter}. {choice}" for letter, choice in zip("ABCD", record["choices"], strict=True))
    return f"{record['question']}\n{options}\nAnswer:"


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]
    except FileNotFoundError:
        raise InputError(f"{path}: not there; --data names the folder of the task files") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
