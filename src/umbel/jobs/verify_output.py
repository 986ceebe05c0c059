"""The rows of an output file as `umbel verify` reads them, in each of its formats."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from umbel.jobs.verify_arrow import batches_of, cells_of
from umbel.jobs.verify_delimited import records_of
from umbel.jobs.verify_lines import lines_of

_PACKINGS = (".gz", ".zst")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_TYPED = (".parquet", ".pq", ".arrow", ".feather")
_JSON_CELLS = frozenset(
    (
        *("token_ids", "logprobs", "choices", "usage", "prompt_logprobs", "scores", "choice_logprobs"),
        *("choice_probabilities", "embedding", "probs", "error", "response"),
    )
)
_OF_ANSWERS = frozenset({"text", "finish_reason", "choice", "custom_id", "id"})


def _suffix(path: Path) -> str:
    name = path.stem if path.suffix.lower() in _PACKINGS else path.name
    return Path(name).suffix.lower()


def is_table_file(path: Path) -> bool:
    """Whether an output is a table, by its name."""
    return _suffix(path) in (*_DELIMITERS, *_TYPED)


def output_rows(path: Path) -> Iterator[dict[str, Any] | str]:
    """The rows as their JSON lines would have them; a text says what is wrong with one. Raises ValueError for a file
    that cannot be read as a whole."""
    suffix = _suffix(path)
    if suffix in _TYPED:
        for batch in batches_of(path):
            names, columns = batch.schema.names, [cells_of(column) for column in batch.columns]
            for cells in zip(*columns, strict=True):
                yield _filled(dict(zip(names, cells, strict=True)))
    elif suffix in _DELIMITERS:
        yield from _from_text(path, _DELIMITERS[suffix])
    else:
        yield from map(_from_line, lines_of(path, None))


def _from_line(line: bytes | None) -> dict[str, Any] | str:
    if line is None:
        return "the packed file is damaged or cut here"
    try:
        item = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        return f"not JSON ({error})"
    return item if isinstance(item, dict) else "not an object"


def _from_text(path: Path, delimiter: str) -> Iterator[dict[str, Any] | str]:
    records = records_of(path, delimiter, None)
    names = next(records, None) or []
    for cells in records:
        if cells is None or len(cells) != len(names):
            yield "not a record with the columns of the header"
            continue
        found: dict[str, Any] = dict(zip(names, cells, strict=True))
        try:
            for name in _JSON_CELLS & found.keys():
                found[name] = json.loads(found[name]) if found[name] else None
        except ValueError as error:
            yield f"column {name}: not JSON ({error})"
            continue
        if found.get("error") is not None or "choices" in found or "choice" in found or "scores" in found:
            found |= {name: None for name in ("text", "finish_reason", "choice") if found.get(name) == ""}
        yield _filled(found)


def _filled(item: dict[str, Any]) -> dict[str, Any]:
    """The columns that a row fills, as its JSON line would have them."""
    if "response" in item and "text" not in item:
        if isinstance(item["response"], str):
            item["response"] = json.loads(item["response"])
        expired = item["response"] is None
        return item if expired else {**item, "error": None}
    empty = "choices" if item.get("choices") is None else "text"
    return {name: value for name, value in item.items() if name != empty}
