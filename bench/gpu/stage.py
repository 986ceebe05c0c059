"""Where the parts run: the device, what was asked, the seconds that are left, and the clock that times calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TypeVar

import torch

from bench.gpu.findings import Findings

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line said; `rows` 0: as many as the seconds allow."""

    small: bool = False
    peers: tuple[str, ...] = ("vllm",)
    points: tuple[str, ...] = ()
    arms: tuple[str, ...] = ()
    rows: int = 0
    repeats: int = 20
    graphs: bool = True


@dataclass(slots=True)
class Stage:
    """One run on one device. `matmul` (FLOP/s in `dtype`) and `memory` (bytes/s) are the measured ceilings; a part
    stops at `deadline` (time.monotonic)."""

    device: torch.device
    dtype: torch.dtype
    asked: Asked
    found: Findings
    deadline: float = 0.0
    matmul: float = 0.0
    memory: float = 0.0
    scratch: Path = field(default=Path("."))

    @property
    def small(self) -> bool:
        """Whether this is only a check of the script."""
        return self.asked.small

    @property
    def left(self) -> float:
        """Seconds that the part may still take."""
        return self.deadline - time.monotonic()

    def each(self, what: str, cases: Iterable[T], seconds: float = 1.0) -> Iterator[T]:
        """The cases one by one, while there are `seconds` for the next; says what was left out."""
        waiting = list(cases)
        while waiting:
            if self.left < seconds:
                self.found.note(f"left out for want of time: {len(waiting)} of {what}, from {str(waiting[0])[:60]} on")
                return
            yield waiting.pop(0)

    def floor(self, flops: float, n_bytes: float) -> dict[str, float]:
        """The two floors of a piece of work, in ms."""
        return {"arithmetic ms": flops / self.matmul * 1e3, "bytes ms": n_bytes / self.memory * 1e3}

    def free(self) -> None:
        """Give memory that torch keeps back to the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.empty_cache()


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds of one call: the median of `n`, and (largest - smallest) / median."""

    ms: float
    spread: float
    n: int

    @classmethod
    def of(cls, taken: list[float]) -> Times:
        """The times of single calls, summed up."""
        middle = median(taken)
        return cls(middle, (max(taken) - min(taken)) / middle, len(taken))


def time_calls(act: Callable[[], object], stage: Stage, *, graph: bool = True) -> Times:
    """Median of `asked.repeats` calls by the device's clock, after a warm-up; as replays of a CUDA graph where `act`
    can be captured, so that the time to launch is left out."""
    if stage.device.type != "cuda":
        return Times.of([_wall_ms(act) for _ in range(2 if stage.small else stage.asked.repeats)])
    replay = captured(act) if graph and stage.asked.graphs else None
    run = act if replay is None else replay
    for _ in range(3):
        run()
    pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(stage.asked.repeats)]
    for begin, end in pairs:
        begin.record()
        run()
        end.record()
    torch.cuda.synchronize()
    return Times.of([begin.elapsed_time(end) for begin, end in pairs])


def time_wall(act: Callable[[], object], stage: Stage, repeats: int | None = None) -> Times:
    """Median by the processor's clock of calls that end with the device idle: what a step really takes."""
    for _ in range(1 if stage.small else 3):
        act()
    return Times.of([_wall_ms(act, stage) for _ in range(2 if stage.small else repeats or stage.asked.repeats)])


def _wall_ms(act: Callable[[], object], stage: Stage | None = None) -> float:
    began = time.perf_counter()
    act()
    if stage is not None and stage.device.type == "cuda":
        torch.cuda.synchronize()
    return max((time.perf_counter() - began) * 1e3, 1e-6)


def captured(act: Callable[[], object]) -> Callable[[], object] | None:
    """`act` as the replay of a CUDA graph; None where it cannot be captured."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            act()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            kept = act()
    except RuntimeError:
        torch.cuda.synchronize()
        return None
    return lambda: (graph.replay(), kept)


def device_name(device: torch.device) -> str:
    """What a GPU calls itself."""
    return (
        torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU: Triton's interpreter on the processor"
    )
