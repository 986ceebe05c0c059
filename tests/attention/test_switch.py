"""The switch between one shared pass and reading per row: data that ships with the package, read, checked and used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from bench.gpu.trees import decodes, step_of

from tests.attention.stage import CPU, poisoned_store, spec_of
from umbel.attention.switch import FILE, Switch, read_switch, shipped_switch
from umbel.attention.work import shared_nodes

GOOD = {"share_factor": 2, "fitted": True, "source": "s", "device": "d", "date": "2026-01-01"}


def test_the_shipped_one_says_where_it_comes_from() -> None:
    shipped = shipped_switch()
    assert shipped == read_switch(FILE) and shipped.share_factor > 0
    assert shipped.fitted == (shipped.device is not None) == (shipped.date is not None), "fitted where and when?"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        *(json.dumps({**GOOD, **wrong}) for wrong in ({"share_factor": -1}, {"share_factor": "1"}, {"x": 1})),
    ],
)
def test_a_damaged_one_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "switch.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"switch\.json"):
        read_switch(path)


def test_a_good_one_is_read(tmp_path: Path) -> None:
    path = tmp_path / "switch.json"
    path.write_text(json.dumps(GOOD))
    assert read_switch(path) == Switch(**GOOD)


def test_attention_switches_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two readers of 16 keys spare 16 and merge 8 results: it pays from a half on."""
    triton = pytest.importorskip("umbel.attention.triton", reason="Triton is not installed here")
    spec, step = spec_of(1, 4, 16), step_of(decodes(2, 16, 1))
    for share_factor, shared in ((0.51, True), (0.49, False)):
        monkeypatch.setattr(
            triton, "shipped_switch", lambda share_factor=share_factor: Switch(share_factor, False, "", None, None)
        )
        attention = triton.TritonAttention(spec, poisoned_store(spec, 4, 16, torch.float32), CPU)
        assert attention._cut(step, *attention.kinds.kinds[0]).share_factor == share_factor
        assert shared_nodes(step, attention._cut(step, *attention.kinds.kinds[0])).tolist() == [shared, False, False]
