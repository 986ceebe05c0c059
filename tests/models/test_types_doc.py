"""docs/model_types.md has a row for every type of the installed transformers, and says what the code does with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from tests.models.types_doc import DOC, document
from umbel.errors import ModelError
from umbel.models.families import read_spec
from umbel.models.hosted.fate import fate_of, model_types


def test_the_page_is_current() -> None:
    assert DOC.read_text(encoding="utf-8") == document(), "write it again: python -m tests.models.types_doc"


def test_types_that_are_refused_say_why(tmp_path: Path) -> None:
    refused = [kind for kind in model_types() if fate_of(kind).way == "refused"]
    assert len(refused) > 20
    for kind in refused:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
        with pytest.raises(ModelError, match=r"config\.json"):
            read_spec(tmp_path)
