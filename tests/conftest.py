"""Settings for all tests: what one test does is not known to the next, and nothing depends on how fast a machine is.

Examples of hypothesis and the draws of the `seed` fixture are the same in every run. `pytest --hypothesis-seed=N` draws
others, as CI does. GPU kernels run in Triton's interpreter where there is no GPU.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read where kernels are imported

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM)


def pytest_configure(config: pytest.Config) -> None:
    """One profile for all examples: no time limits, no history of earlier runs, new ones only where a seed is given."""
    settings.register_profile(
        "umbel",
        deadline=None,
        database=None,
        print_blob=True,
        derandomize=_seed(config) is None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("umbel")


def _seed(config: pytest.Config) -> str | None:
    return config.getoption("--hypothesis-seed", default=None)


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Where a test's own draws begin; told where the test fails."""
    number = int(_seed(request.config) or 0)
    print(f"again with: pytest --hypothesis-seed={number}")
    return number


@pytest.fixture(autouse=True, scope="session")
def _steady() -> Iterator[None]:
    """No plan depends on how fast this machine is: it has fixed rates, and what steps take is not kept. One thread."""
    for number in SIGNALS:
        if signal.getsignal(number) is signal.SIG_IGN:  # by nohup, which processes that are started here would inherit
            signal.signal(number, signal.SIG_DFL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UMBEL_CACHE", "off")
        patch.setattr("umbel.cost.machine._matmul_rate", lambda seconds: 1e11)
        patch.setattr("umbel.cost.machine._copy_rate", lambda seconds: 1e10)
        torch.set_num_threads(1)
        yield


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """For a test of what is kept: an empty folder for it."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("UMBEL_CACHE", str(folder))
    return folder


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    """Signal handlers and threads are left as they were: a command ends its process deaf to signals, and this process
    goes on."""
    handlers = [signal.getsignal(number) for number in SIGNALS]
    yield
    for number, handler in zip(SIGNALS, handlers, strict=True):
        signal.signal(number, handler)
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)
