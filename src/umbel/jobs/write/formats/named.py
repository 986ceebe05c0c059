"""Which format an output has, by its name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from umbel.errors import UsageError

_KINDS = MappingProxyType(
    {
        "": "lines",
        ".jsonl": "lines",
        ".ndjson": "lines",
        ".csv": "csv",
        ".tsv": "tsv",
        ".parquet": "parquet",
        ".pq": "parquet",
        ".arrow": "arrow",
        ".feather": "arrow",
    }
)
_PACKINGS = MappingProxyType({".gz": "gzip", ".zst": "zstd"})
LISTED = ".jsonl, .csv or .tsv (each also with .gz or .zst behind it), .parquet, .arrow or .feather"


@dataclass(frozen=True, slots=True)
class Format:
    """A format: `kind` is lines (JSON), csv, tsv, parquet or arrow, `packing` gzip, zstd or nothing."""

    kind: str
    packing: str = ""

    @property
    def is_typed(self) -> bool:
        """Whether its columns have types."""
        return self.kind in ("parquet", "arrow")


def format_of(path: Path, option: str = "output") -> Format:
    """The format that a name asks for; JSON lines where it has no suffix. Raises UsageError for one that is not
    known."""
    packing = _PACKINGS.get(path.suffix.lower(), "")
    name = Path(path.stem) if packing else path
    kind = _KINDS.get(name.suffix.lower())
    if kind is None:
        raise UsageError(f"{option} {path}: no format has names with {name.suffix}; give it one with {LISTED}")
    if packing and kind in ("parquet", "arrow"):
        raise UsageError(f"{option} {path}: {name.suffix} is packed inside; leave {path.suffix} out")
    return Format(kind, packing)
