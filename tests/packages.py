"""Installs packages that bring techniques, as pip would: metadata in a folder that is on the path of imports."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from umbel import registry

TOYS = Path(__file__).with_name("toys")
ROWS = {  # what pyproject.toml of the toys would have
    "admission.few": "few_admission:ROW",
    "attention.plain": "plain_attention:ROW",
    "watcher.alternating": "alternating_ids:ROW",
    "keep.walk": "walk_keep:ROW",
    "drafter.echo": "echo_drafter:ROW",
}


def write_package(folder: Path, name: str, rows: Mapping[str, str], modules: Mapping[str, str] | None = None) -> None:
    """A package in `folder`: its entry points by name, and the texts of its modules."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"{entry} = {value}" for entry, value in rows.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{registry.GROUP}]", *lines, ""]))
    for module, text in (modules or {}).items():
        (folder / f"{module}.py").write_text(text)


@contextmanager
def installed(*folders: Path) -> Iterator[None]:
    """The packages in some folders are there, and gone afterwards."""
    path, known = list(sys.path), set(sys.modules)
    sys.path[:0] = [str(folder) for folder in folders]
    registry.installed.cache_clear()
    try:
        yield
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - known:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(tuple(map(str, folders))):
                del sys.modules[name]
        registry.installed.cache_clear()
