"""What a run has found so far, on disk after every row, so that a run that is cut short keeps what it has."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Cell = str | int | float | bool | None


class Findings:
    """Tables, checks and notes of each part; `folder/result.json` and `folder/result.md` hold them."""

    def __init__(self, folder: Path, about: Mapping[str, Any]):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.about = dict(about)
        self.parts: dict[str, dict[str, Any]] = {}
        self._part = ""

    def begin(self, part: str) -> None:
        """What follows belongs to this part."""
        self._part = part
        self.parts[part] = {"status": "cut short", "seconds": 0.0, "tables": {}, "checks": [], "notes": []}
        self._began = time.monotonic()
        print(f"\n## {part}", flush=True)

    def end(self, status: str) -> None:
        """The part is over: "done", "stopped" (its seconds were spent) or "failed"."""
        self.parts[self._part]["status"] = status
        self._keep()
        print(f"{self._part}: {status}, {self.parts[self._part]['seconds']:.1f} s", flush=True)

    def row(self, table: str, **cells: Cell) -> None:
        """One more row of a table; all rows of a table have the same columns."""
        rows = self.parts[self._part]["tables"].setdefault(table, [])
        if rows and list(rows[0]) != list(cells):
            raise ValueError(f"table {table!r} has columns {list(rows[0])}, not {list(cells)}")
        rows.append(cells)
        print(f"{table}: " + ", ".join(f"{name} {show(cell)}" for name, cell in cells.items()), flush=True)
        self._keep()

    def check(self, name: str, passed: bool, detail: str) -> None:
        """One thing that must hold; a failed one makes the run fail, at its end."""
        self.parts[self._part]["checks"].append({"name": name, "passed": bool(passed), "detail": detail})
        print(f"{'passed' if passed else 'FAILED'}: {name}: {detail}", flush=True)
        self._keep()

    def note(self, text: str) -> None:
        """What else must be known: left out, not installed, failed."""
        self.parts[self._part]["notes"].append(text)
        print(text, flush=True)
        self._keep()

    @property
    def passed(self) -> bool:
        """Whether no check and no part has failed."""
        checks = [check["passed"] for part in self.parts.values() for check in part["checks"]]
        return all(checks) and all(part["status"] != "failed" for part in self.parts.values())

    def _keep(self) -> None:
        self.parts[self._part]["seconds"] = round(time.monotonic() - self._began, 1)
        record = {"about": self.about, "parts": self.parts}
        write_whole(self.folder / "result.json", json.dumps(record, indent=1, default=str) + "\n")
        write_whole(self.folder / "result.md", markdown(record))


def write_whole(path: Path, text: str) -> None:
    """All of it or nothing."""
    new = path.with_name(path.name + ".new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def markdown(record: Mapping[str, Any]) -> str:
    """All tables of a record."""
    lines = [f"- {name}: {value}" for name, value in record["about"].items()]
    for name, part in record["parts"].items():
        lines += ["", f"## {name}", "", f"{part['status']}, {part['seconds']:.1f} s"]
        for title, rows in part["tables"].items():
            lines += ["", f"### {title}", "", *table(rows)]
        if part["checks"]:
            lines += [
                "",
                *(f"- {'passed' if c['passed'] else 'FAILED'}: {c['name']}: {c['detail']}" for c in part["checks"]),
            ]
        if part["notes"]:
            lines += ["", *(f"- {note}" for note in part["notes"])]
    return "\n".join(lines) + "\n"


def table(rows: list[dict[str, Cell]]) -> list[str]:
    """Rows of the same columns as Markdown."""
    head = list(rows[0])
    cells = [[show(row[name]) for name in head] for row in rows]
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *cells)]


def show(cell: Cell) -> str:
    """A cell for people: four digits of a number that is not whole, a dash for what is not known."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return "-"
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:.4g}"
    return f"{cell:,}" if isinstance(cell, int) and not isinstance(cell, bool) else str(cell)
