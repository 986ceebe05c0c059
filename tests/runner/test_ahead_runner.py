"""The runner of GPUs is a step ahead: the loop decides a step while the one before it is computed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.tiny_models import make_model
from umbel.api import LLM
from umbel.attention.capabilities import capability_of
from umbel.ir.params import SamplingParams
from umbel.ir.step import Step, StepResult
from umbel.runner.ahead import AheadTorchRunner
from umbel.runner.base import Wait
from umbel.runner.pick import VARIABLE, pick_graphs
from umbel.runner.torch_runner import TorchRunner


@pytest.mark.parametrize(("kind", "together"), [(TorchRunner, 1), (AheadTorchRunner, 2)])
def test_how_many_steps_are_under_way(
    kind: type[TorchRunner], together: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_steps, most = [0], [0]

    class Counted(kind):  # type: ignore[misc, valid-type]
        def start(self, step: Step) -> Wait:
            wait = super().start(step)
            open_steps[0] += 1
            most[0] = max(most[0], open_steps[0])

            def counted() -> StepResult:
                open_steps[0] -= 1
                return wait()

            return counted

    monkeypatch.setattr("umbel.engine.build.TorchRunner", lambda *parts: Counted(*parts[:3]))
    llm = LLM(str(make_model(tmp_path / "tiny")), device="cpu")
    llm.generate([[5, 6, 7], [5, 6, 8]], SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True))
    assert (open_steps[0], most[0]) == (0, together)


def test_what_is_recorded_is_what_the_catalogue_says_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr("umbel.runner.graphs.DecodeGraphs", lambda *parts: parts)

    def recorded(name: str, hosted: object = None, recurrences: tuple[object, ...] = ()) -> bool:
        decoder = SimpleNamespace(spec=SimpleNamespace(hosted=hosted, recurrences=recurrences))
        return pick_graphs(cast(Any, decoder), cast(Any, SimpleNamespace(name=name))) is not None

    assert not recorded("triton", hosted="modules of transformers")
    assert not recorded("triton", recurrences=("a convolution",))
    assert [name for name in ("triton", "native", "torch") if recorded(name)] == ["triton"]
    monkeypatch.setenv(VARIABLE, "0")
    assert not recorded("triton")
    assert capability_of("triton").records
