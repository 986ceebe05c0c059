"""The sections of docs/techniques.md that the lab writes are those of the record beside it."""

from __future__ import annotations

import json

from tests.house.source import ROOT
from umbel.lab.session import LabRecord
from umbel.lab.table import BEGIN, END, sections

DOCS = ROOT / "docs"


def test_the_page_has_what_the_record_says() -> None:
    """Written by: umbel lab --from docs/lab.json --page docs/techniques.md"""
    record = LabRecord.of_dict(json.loads((DOCS / "lab.json").read_text(encoding="utf-8")))
    written = (DOCS / "techniques.md").read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    assert record.techniques and written.strip() == sections(record).strip()
