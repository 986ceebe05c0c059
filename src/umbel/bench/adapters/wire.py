"""JSON lines over stdin and stdout between the harness and one engine; needs nothing but the standard library.

Each request is an object whose `do` names a handler; the answer is what the handler returns, or {"error": text}. The
usual handlers: `prepare` (make the engine's own form of a model, once), `load`, `run` (see `run_rows`).
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

Handler = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def serve(handlers: Mapping[str, Handler]) -> None:
    """Answer requests until stdin ends. What libraries print goes to stderr, so that stdout holds answers only."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        ask = json.loads(line)
        begin = time.perf_counter()
        try:
            answer = dict({"prepare": _as_it_is, **handlers}[ask["do"]](ask))
        except Exception as error:  # whatever an engine raises is the harness's to report
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"[:2000]}
        answers.write(json.dumps({"took": time.perf_counter() - begin, **answer}) + "\n")
        answers.flush()


def _as_it_is(ask: Mapping[str, Any]) -> Mapping[str, Any]:
    """Handle `prepare` for an engine that reads a Hugging Face directory."""
    return {"model": ask["model"]}


def run_rows(
    ask: Mapping[str, Any],
    stage: Callable[[list[dict[str, Any]]], Any],
    generate: Callable[[Any], list[list[list[int]]]],
    forget: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Handle `run`: read the file `rows`, sort by prompt if `sort` says so, generate, write the file `out`.

    `stage` turns rows into what the engine takes; `generate` gives, for each of them, the tokens of each sample. The
    clock runs over sorting and `generate`; `forget` (drop cached prefixes), reading and staging come before it.
    """
    with open(ask["rows"], encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    forget()
    begin = time.perf_counter()
    order = sorted(range(len(rows)), key=lambda i: rows[i]["prompt"]) if ask["sort"] else range(len(rows))
    sorting = time.perf_counter() - begin
    staged = stage([rows[i] for i in order])
    begin = time.perf_counter()
    answers = generate(staged)
    seconds = time.perf_counter() - begin + sorting
    found = dict(zip(order, answers, strict=True))
    _write(ask["out"], [found[i] for i in range(len(rows))])
    return {"seconds": seconds, "output_tokens": sum(len(sample) for row in answers for sample in row)}


def _write(path: str, answers: list[list[list[int]]]) -> None:
    """Write one line a row, and sync the file to disk."""
    with open(path, "w", encoding="utf-8") as out:
        for i, samples in enumerate(answers):
            out.write(json.dumps({"id": i, "samples": samples}, separators=(",", ":")) + "\n")
        out.flush()
        os.fsync(out.fileno())
