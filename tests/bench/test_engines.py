"""Names of engines, their settings, processes and environments."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from umbel.bench.engines import ADAPTERS, BASES, environment, parse_engine, preloads, python_for
from umbel.errors import UsageError


def test_variants_and_settings() -> None:
    plain = parse_engine("vllm-sorted:block_size=128+enforce_eager=true+gpu=0.5+kv=f16")
    assert plain.key == "vllm" and plain.is_sorted
    assert {"block_size": 128, "enforce_eager": True, "gpu": 0.5, "kv": "f16"}.items() <= plain.settings.items()
    assert plain.settings["max_num_seqs"] == BASES["vllm"].settings["max_num_seqs"]


def test_variants_share_a_process_where_nothing_is_kept() -> None:
    assert parse_engine("vllm").process == parse_engine("vllm-sorted").process
    assert parse_engine("openvino").process != parse_engine("openvino-sorted").process
    assert parse_engine("vllm").process != parse_engine("vllm:block_size=128").process


@pytest.mark.parametrize(("text", "said"), [("vlm", "did you mean 'vllm'"), ("vllm:block_size", "name=value")])
def test_what_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_engine(text)


def test_interpreters(tmp_path: Path) -> None:
    assert python_for(parse_engine("umbel"), {}) == sys.executable
    assert python_for(parse_engine("vllm-sorted"), {"vllm": sys.executable}) == sys.executable
    with pytest.raises(UsageError, match="--peer vllm=PYTHON"):
        python_for(parse_engine("vllm"), {})
    with pytest.raises(UsageError, match="not an interpreter"):
        python_for(parse_engine("vllm"), {"vllm": str(tmp_path / "python")})


def test_our_paths_stay_out_of_other_environments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", "/ours")
    base = BASES["vllm"]
    assert "PYTHONPATH" not in environment(base, str(tmp_path / "bin" / "python"), 2)
    assert environment(BASES["umbel"], sys.executable, 3)["OMP_NUM_THREADS"] == "3"


def test_preloads_are_found_beside_the_interpreter(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libiomp5.so").touch()
    python = str(tmp_path / "bin" / "python")
    assert str(tmp_path / "lib" / "libiomp5.so") in preloads(python)
    assert "libiomp5.so" in environment(BASES["vllm"], python, 2)["LD_PRELOAD"]


def test_every_script_is_there_and_stands_alone() -> None:
    for base in BASES.values():
        text = (ADAPTERS / base.script).read_text(encoding="utf-8")
        assert "import wire" in text
        assert "umbel" in base.script or "from umbel" not in text
