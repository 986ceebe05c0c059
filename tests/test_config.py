"""Engine settings: what is refused, and what the refusal says."""

from __future__ import annotations

import dataclasses
import json

import pytest

from umbel.config import EngineConfig
from umbel.errors import UsageError, nearest


def test_the_defaults_leave_everything_to_the_plan() -> None:
    config = EngineConfig.of("demo")
    assert (config.dtype, config.device, config.load_format) == ("auto", "auto", "auto")
    assert config.threads is config.kv_tokens is config.chunk is None
    assert config.seed == 0


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("dtpye", "dtype"), ("kv_token", "kv_tokens"), ("thread", "threads"), ("chunks", "chunk"), ("sed", "seed")],
)
def test_an_unknown_option_is_named_with_the_nearest_known_one(wrong: str, meant: str) -> None:
    with pytest.raises(UsageError, match=rf"unknown option '{wrong}' \(did you mean '{meant}'\?\)"):
        EngineConfig.of("demo", **{wrong: 1})


def test_an_option_far_from_all_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"unknown option 'zzz'; known: .*kv_tokens.*chunk") as error:
        EngineConfig.of("demo", zzz=1)
    assert "did you mean" not in str(error.value) and error.value.exit_code == 2


@pytest.mark.parametrize("name", ["threads", "kv_tokens", "chunk", "page_size"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "8", True])
def test_counts_are_whole_and_positive(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"{name}=.*must be a whole number of at least 1"):
        EngineConfig.of("demo", **{name: value})


@pytest.mark.parametrize(("name", "value"), [("dtype", "float23"), ("dtype", "int8"), ("load_format", "pt")])
def test_choices_are_named(name: str, value: str) -> None:
    with pytest.raises(UsageError, match=f"{name}='{value}': must be one of auto"):
        EngineConfig.of("demo", **{name: value})


def test_a_config_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        EngineConfig.of("demo").chunk = 5  # type: ignore[misc]


def test_nearest() -> None:
    assert nearest("temprature", ["temperature", "top_p"]) == " (did you mean 'temperature'?)"
    assert nearest("qqq", ["temperature"]) == ""


def test_settings_survive_json() -> None:
    """As the other ranks of a process group get them."""
    config = EngineConfig("demo", skip=("lengths",), tensor_parallel_size=2)
    assert EngineConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config
