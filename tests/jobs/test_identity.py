"""A job goes on only with the arithmetic that it began with: whatever changes bytes is in its fingerprint."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.fakes import FakeEngine, make_job, write_rows
from tests.packages import ROWS as ROWS_OF_TOYS
from tests.packages import TOYS, installed, write_package
from tests.parameters import by_night
from tests.tiny_models import make_model
from umbel.config import DECIDED_HERE, EngineConfig
from umbel.errors import StoreMismatch
from umbel.ir.budget import Budget
from umbel.jobs.job import Job
from umbel.kernels.native.calls import INSTRUCTION_SETS
from umbel.models.digest import hash_model

ROWS = [{"custom_id": f"row-{i}", "prompt": f"prompt {i}", "max_tokens": 2 + i % 4} for i in range(30)]
HERE = {"dtype": "bfloat16", "attention_backend": "native", "device": "cpu", "kernels": "avx512", "torch": "2.13.0"}
HARMLESS = {
    *("device", "threads", "kv_tokens", "chunk", "page_size", "prefix", "admission", "skip", "data_parallel_size"),
    *("executor", "ray_address", "kv_dir", "kv_dir_gib"),
    "keep",
    "speculate",
    *("model", "allow_lossy"),  # the files of the model count, and what is lossy by its own name
    "lora",  # the files of adapters count
    "generation_config",  # what it makes of rows counts, by the names of their defaults
}


def job(place: Path, decided: Mapping[str, str] = HERE, engine: FakeEngine | None = None, **settings: Any) -> Job:
    """A job over fakes with these settings, on a machine that decides so; it stops after some tokens."""
    made = make_job(place / "in.jsonl", place / "out", engine, budget=Budget(output_tokens=40))
    identity = EngineConfig("fake", allow_lossy=True, **settings).identity
    parts = {name: value for name, value in made.spec.identity.items() if not name.startswith("engine.")}
    made.spec = replace(made.spec, identity={**parts, **{f"engine.{n}": value for n, value in identity.items()}})
    made.arithmetic = lambda: dict(decided)
    return made


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A folder with a job that was stopped."""
    write_rows(tmp_path / "in.jsonl", ROWS)
    assert job(tmp_path).run().status == "budget"
    return tmp_path


def test_every_setting_is_known_to_change_bytes_or_not_to() -> None:
    settings = {field.name for field in fields(EngineConfig)}
    identity = {
        *EngineConfig("fake").identity,
        "watchers",
        "mixed_replicas",
        "technique",
    }  # the last three where asked for
    assert settings - HARMLESS == identity - {"device", "kernels", "torch"}
    assert set(DECIDED_HERE) <= identity


@pytest.mark.parametrize(
    ("settings", "typed"),
    [
        ({"dtype": "float32"}, "--dtype bfloat16"),
        ({"attention_backend": "torch"}, "--attention-backend auto"),
        ({"linear": "int8"}, "--linear dense"),
        ({"kv_cache_dtype": "fp8"}, "--kv-cache-dtype auto"),
        ({"tensor_parallel_size": 2}, "--tensor-parallel-size 1"),
        ({"load_format": "dummy"}, "--load-format safetensors"),
        ({"seed": 5}, "--seed 0"),
    ],
)
def test_another_setting_is_refused_before_anything_is_asked_of_the_machine(
    settings: dict[str, Any], typed: str, begun: Path
) -> None:
    before = (begun / "out").read_bytes()
    other = job(begun, **settings)
    other.arithmetic = other.load = lambda: pytest.fail("too late")
    with pytest.raises(StoreMismatch, match=rf"engine\.{next(iter(settings))}: (?s:.*)to resume \({typed}\)"):
        other.run()
    assert (begun / "out").read_bytes() == before


def test_another_watcher_is_refused(begun: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """In both directions: a job without one goes on without, and one with it goes on with it."""
    packages = tmp_path_factory.mktemp("packages")
    write_package(packages, "umbel-toys", ROWS_OF_TOYS)
    with installed(packages, TOYS):
        with pytest.raises(StoreMismatch, match=r"engine\.watchers: (?s:.*)to resume \(no --watcher\)"):
            job(begun, watchers=("alternating",)).run()
        watched = tmp_path_factory.mktemp("watched")
        write_rows(watched / "in.jsonl", ROWS)
        assert job(watched, watchers=("alternating",)).run().status == "budget"
        with pytest.raises(StoreMismatch, match=r"to resume \(--watcher alternating\)"):
            job(watched).run()


def test_a_lossy_choice_of_any_kind_is_part_of_the_job(begun: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Also of a family whose techniques are exact as a rule, and the advice says what has to be allowed."""
    packages = tmp_path_factory.mktemp("packages")
    text = "from umbel.technique import Technique\n"
    text += "LOSSY = Technique('admission', 'hasty', False, 'umbel.sched.policies.aggressive:Aggressive', 'x')\n"
    text += "EXACT = Technique('linear', 'own', True, 'umbel.linear.dense:DenseLinear', 'x')\n"
    rows = {"admission.hasty": "hasty:LOSSY", "linear.own": "hasty:EXACT"}
    write_package(packages, "umbel-hasty", rows, {"hasty": text})
    with installed(packages):
        assert "admission" not in EngineConfig("fake", admission="headroom").identity
        with pytest.raises(StoreMismatch, match=r"engine\.admission: (?s:.*)to resume \(no --admission\)"):
            job(begun, admission="hasty").run()
        for settings, typed in (
            ({"admission": "hasty"}, "--admission hasty --allow-lossy"),
            ({"linear": "own"}, "--linear own"),
        ):
            place = tmp_path_factory.mktemp("lossy")
            write_rows(place / "in.jsonl", ROWS)
            assert job(place, **settings).run().status == "budget"
            with pytest.raises(StoreMismatch, match=rf"to resume \({typed}\)"):
                job(place).run()


@pytest.mark.parametrize(
    ("decided", "typed"),
    [
        ({"dtype": "float32"}, "--dtype bfloat16"),
        ({"kernels": "torch", "attention_backend": "torch"}, "--attention-backend auto UMBEL_NATIVE=avx512"),
        ({"kernels": "avx2"}, "UMBEL_NATIVE=avx512"),
        ({"device": "NVIDIA H200", "kernels": "triton"}, "--device cpu UMBEL_TRITON=0"),
        ({"torch": "2.14.0"}, None),
    ],
)
def test_another_machine_is_refused_before_the_model_is_loaded(
    decided: dict[str, str], typed: str | None, begun: Path
) -> None:
    other = job(begun, HERE | decided)
    other.load = lambda: pytest.fail("too late")
    with pytest.raises(StoreMismatch) as caught:
        other.run()
    listed = str(caught.value).splitlines()[1:-1]
    assert sorted(listed) == sorted(f"  engine.{name}: {HERE[name]} -> {value}" for name, value in decided.items())
    assert (f"to resume ({typed}), use" if typed else "to resume, use") in str(caught.value)
    engine = FakeEngine()
    again = job(begun, engine=engine)
    again.spec = replace(again.spec, budget=Budget())
    assert again.run().status == "complete"
    assert 0 < len(engine.seen) < len(ROWS)


def test_what_the_machine_decided_may_be_asked_for_by_name(begun: Path) -> None:
    named = job(begun, dtype="bfloat16")
    named.spec = replace(named.spec, budget=Budget())
    assert named.run().status == "complete"
    plain = (begun / "out").read_bytes()
    again = job(begun, HERE | {"dtype": "float32"})
    again.spec = replace(again.spec, fresh=True, budget=Budget())
    assert again.run().status == "complete"
    assert (begun / "out").read_bytes() == plain  # fakes know no dtype, and no id is made of it


def test_rows_that_fail_before_there_is_an_engine_do_not_bind_the_machine(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.jsonl", [{"prompt": ""}])
    other = job(tmp_path)
    other.load = other.arithmetic = lambda: pytest.fail("not needed")
    assert other.run().failed == 1
    assert job(tmp_path, HERE | {"dtype": "float32"}).run().status == "already_complete"


def test_all_files_that_shape_prompts_count(tmp_path: Path) -> None:
    make_model(tmp_path / "tiny")
    before = hash_model(tmp_path / "tiny")
    (tmp_path / "tiny" / "additional_chat_templates").mkdir()
    (tmp_path / "tiny" / "additional_chat_templates" / "tools.jinja").write_text("x")
    assert set(hash_model(tmp_path / "tiny")) - set(before) == {"additional_chat_templates/tools.jinja"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, rows of OpenAI's form, and what they give in one run."""
    place = tmp_path_factory.mktemp("identity")
    make_model(place / "tiny", "qwen3")
    (place / "link").symlink_to("tiny")
    url = "/v1/completions"
    rows = [
        {"custom_id": f"r{i}", "method": "POST", "url": url, "body": {"model": "tiny", "prompt": f"the sky {i}"}}
        for i in range(24)
    ]
    rows.append({"custom_id": "bad", "method": "POST", "url": url, "body": {"model": "another", "prompt": "x"}})
    write_rows(place / "in.jsonl", rows)
    assert umbel(place, "whole", "./tiny").returncode == 3
    return place


def umbel(place: Path, output: str, model: str, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """One command of its own, in the folder."""
    options = ["--max-tokens", "4", "--temperature", "0.9", "--threads", "1", "-q", *more]
    command = [sys.executable, "-m", "umbel.cli.main", "run", "in.jsonl", "-o", output, "-m", model, *options]
    asked = os.environ | {"OMP_NUM_THREADS": "1", "SOURCE_DATE_EPOCH": "1700000000"} | environment
    return subprocess.run(command, cwd=place, env=asked, capture_output=True, text=True, check=False)


def test_a_stopped_command_goes_on_with_the_same_arithmetic_only(place: Path) -> None:
    assert umbel(place, "out", "./tiny", "--max-output-tokens-total", "40").returncode == 5
    before = (place / "out").read_bytes()
    other = umbel(place, "out", "./tiny", UMBEL_NATIVE="0", ATEN_CPU_CAPABILITY="default")
    assert (other.returncode, "engine.torch: " in other.stderr) == (2, True)
    assert ("engine.kernels: " in other.stderr) == bool(INSTRUCTION_SETS)
    assert (place / "out").read_bytes() == before
    typed = re.findall(r"to resume \((.*)\), use", other.stderr)
    words = shlex.split(typed[0]) if typed else []
    named = dict(word.split("=", 1) for word in words if "=" in word)
    assert umbel(place, "out", "./tiny", *(word for word in words if "=" not in word), **named).returncode == 3
    assert (place / "out").read_bytes() == (place / "whole").read_bytes()


@pytest.mark.parametrize("model", by_night(["link"], ["tiny", "tiny/", "../{}/tiny", "{}/link"]))
def test_a_model_may_be_spelled_in_any_way(model: str, place: Path) -> None:
    output = f"out-{model.replace('/', '-')}.jsonl"
    assert umbel(place, output, "./tiny", "--max-output-tokens-total", "40").returncode == 5
    spelled = model.format(place.name if model.startswith("..") else place)
    assert umbel(place, output, spelled, "--chunk", "8", "--prefix", "none").returncode == 3
    assert (place / output).read_bytes() == (place / "whole").read_bytes()


def test_another_name_for_the_model_is_another_job(place: Path) -> None:
    found = umbel(place, "whole", "./tiny", "--served-model-name", "other")
    assert found.returncode == 2
    assert "read.names: [] -> ['other']" in found.stderr
