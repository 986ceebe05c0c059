"""Says in words what a workload is, for charts."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from umbel.bench.workloads import SHAPES, Ragged, Tree

TASKS: Mapping[str, str] = MappingProxyType(
    {
        "L3": "all questions about one long meeting, its transcript first; 32 tokens out",
        "MMLU": "MMLU, five questions of the subject with answers first; 1 token out",
        "BANKING77": "messages of BANKING77, the list of labels first; 6 tokens out",
    }
)


def described(name: str) -> str:
    """What the workload of that name is; "" for a file of rows."""
    base, _, most = name.partition("@")
    words = _shape(SHAPES[base]) if base in SHAPES else TASKS.get(base, "")
    return f"the first {most} rows of {words}" if most and words else words


def _shape(shape: Tree | Ragged) -> str:
    return _tree(shape) if isinstance(shape, Tree) else _ragged(shape)


def _tree(shape: Tree) -> str:
    first, *deeper = shape.levels
    samples = f", {shape.n} samples of each" if shape.n > 1 else ""
    parts, above = [_rows(*first) if not deeper else _beginnings(*first)], first[0]
    for level in deeper:
        each = "each with" if above > 1 else "with"
        parts.append(f"{each} {_rows(*level) if level is deeper[-1] else _beginnings(*level)}")
        above *= level[0]
    return f"{' '.join(parts)}{samples}; {shape.out} tokens out{', shuffled' if shape.shuffled else ''}"


def _beginnings(count: int, tokens: int) -> str:
    return f"{count} beginning{'' if count == 1 else 's'} of {tokens:,} tokens"


def _rows(count: int, tokens: int) -> str:
    return f"{count} rows of {tokens:,} tokens"


def _ragged(shape: Ragged) -> str:
    (*_, least, most), (*_, low, high) = shape.prompt, shape.out
    return f"{shape.count} rows of {least} to {most} tokens that share nothing; {low} to {high} tokens out"
