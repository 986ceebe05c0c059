"""What a machine can do at most: arithmetic, memory bandwidth and memory, measured here or from a data sheet.

Measuring takes a quarter of a second, so the result is kept for a day; of several measurements the best counts, as
other work can only make a machine look slower than it is. `umbel doctor` measures again and discards the others.
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from umbel.cost.json_cache import cache_folder, change_json, read_json
from umbel.cost.shape import BYTES

SECONDS = 0.1  # each rate is measured for
KEEP_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Machine:
    """Ceilings of one device, and where they come from.

    `name`: for display only.
    `matmul_flops`, `matmul_flops_16`: FLOP/s of matrix products in float32, and in 16-bit formats.
    `memory_rate`: bytes/s.
    `memory_bytes`: free for weights and KV.
    `kv_fraction`: share of the memory left by the weights that KV may take.
    `step_overhead`, `layer_overhead`: seconds that a step, and each of its layers, costs however small they are (calls,
        kernel launches; measured on one core with tiny models, estimated for GPUs).
    `chunks`: the step sizes that a planner tries, in tokens.
    `dtypes`: those it multiplies in natively.
    `source`: where the figures come from.
    `device`: "cpu" or "cuda".
    `identity`: tells this machine from others in a history (empty: the name does).
    """

    name: str
    matmul_flops: float
    matmul_flops_16: float
    memory_rate: float
    memory_bytes: int
    kv_fraction: float
    step_overhead: float
    layer_overhead: float
    chunks: tuple[int, ...]
    dtypes: tuple[str, ...]
    source: str
    device: str = "cpu"
    identity: str = ""

    @property
    def on_gpu(self) -> bool:
        """Whether it is a GPU."""
        return self.device == "cuda"

    def flops(self, dtype: str) -> float:
        """FLOP/s of matrix products in a dtype."""
        return self.matmul_flops if dtype == "float32" else self.matmul_flops_16

    def choose_dtype(self, asked: str, own: str) -> str:
        """What to compute in on this machine: `asked`, or for "auto" the model's `own` where it is native here."""
        return choose_dtype(asked, own, self.dtypes)

    def with_memory(self, n_bytes: int) -> Machine:
        """The same machine with another amount of free memory."""
        return replace(self, memory_bytes=n_bytes)


def choose_dtype(asked: str, own: str, native: Sequence[str]) -> str:
    """The dtype to compute in: as asked, or for "auto" the model's own where the device multiplies in it natively."""
    return asked if asked != "auto" else own if own in native else "float32"


def gpu(name: str, flops: float, flops_16: float, rate: float, n_bytes: int, source: str) -> Machine:
    """A GPU by its dense (not sparse) rates. Its overheads are estimates until runs on the GPU improve them: about ten
    launches a layer of five microseconds each, and a millisecond for the rest of a step."""
    return Machine(
        name, flops, flops_16, rate, n_bytes, 0.9, 1e-3, 5e-5, (2048, 4096, 8192), tuple(BYTES), source, "cuda"
    )


def this_machine(*, remeasure: bool = False) -> Machine:
    """This machine's processor with the memory that is free now. Its rates are those kept on disk; they are measured
    when there are none, when they are too old, or when `remeasure`."""
    path = _kept_path()
    known = None if remeasure else read_json(path, _Rates.of_dict)
    if known is None or not 0 <= time.time() - known.at < KEEP_SECONDS:
        new = _Rates(_matmul_rate(SECONDS), _copy_rate(SECONDS), time.time())
        known = new if known is None else _Rates(max(new.flops, known.flops), max(new.bytes, known.bytes), new.at)
        change_json(path, known.as_dict)
    return known.machine()


@dataclass(frozen=True, slots=True)
class _Rates:
    """Measured rates: FLOP/s, bytes/s, and when they were measured (seconds since 1970)."""

    flops: float
    bytes: float
    at: float

    @classmethod
    def of_dict(cls, values: Mapping[str, Any]) -> _Rates:
        """The rates that `as_dict` wrote; raises ValueError for impossible ones."""
        flops, n_bytes, at = (float(values[name]) for name in ("flops", "bytes", "at"))
        if not (0 < flops < math.inf and 0 < n_bytes < math.inf):
            raise ValueError(f"rates of {flops} FLOP/s and {n_bytes} bytes/s")
        return cls(flops, n_bytes, at)

    def as_dict(self) -> dict[str, float]:
        """The rates as plain numbers."""
        return {"flops": self.flops, "bytes": self.bytes, "at": self.at}

    def machine(self) -> Machine:
        """The machine with these rates. 16-bit products get the float32 rate: without matrix units that is what they
        reach."""
        flops, rate = self.flops, self.bytes
        source = f"measured: float32 matmul {flops / 1e9:.0f} GFLOP/s, copy {rate / 1e9:.1f} GB/s"
        dtypes = processor_dtypes()
        memory, chunks = available_memory(), (512, 1024, 2048)
        return Machine(
            "this", flops, flops, rate, memory, 0.4, 3e-3, 7e-4, chunks, dtypes, source, "cpu", identity=this_name()
        )


def _kept_path() -> Path | None:
    folder = cache_folder()
    threads = [os.environ.get(name, "") for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")]
    key = json.dumps([np.__version__, this_name(), threads])
    return None if folder is None else folder / f"machine-{sha256(key.encode()).hexdigest()[:20]}.json"


def machine_name(machine: Machine) -> str:
    """The name that tells a machine from others in a history: its processor and cores, or the accelerator's name."""
    return machine.identity or machine.name


def this_name() -> str:
    """The processor and cores of this machine, for people and for the names of files."""
    return f"{platform.machine()} {processor_name()} x{os.cpu_count()}"


def processor_name() -> str:
    """Name, family, model and stepping of the first core, as far as the system reports them."""
    found = _first_core()
    names = ("model name", "cpu family", "model", "stepping")
    return " ".join(found.get(name, "") for name in names) if found else platform.processor()


def processor_model() -> str:
    """The name of the processor's model, for people."""
    return _first_core().get("model name", "") or platform.processor() or platform.machine()


def _first_core() -> dict[str, str]:
    """What the system reports of the first core; empty where it reports nothing."""
    try:
        with open("/proc/cpuinfo") as lines:
            pairs = [line.split(":", 1) for line in lines.read().split("\n\n")[0].splitlines() if ":" in line]
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, value in pairs}


def _matmul_rate(seconds: float) -> float:
    """FLOP/s of all cores; where other work keeps them from starting together, a single core's rate times their
    number."""
    return max(_square_rate(seconds / 2, 384), _square_rate(seconds / 2, 64) * (os.cpu_count() or 1))


def _square_rate(seconds: float, size: int) -> float:
    """FLOP/s of float32 matmuls of one size; libraries run small ones (64) on one core."""
    a = np.full((size, size), 0.5, np.float32)
    out = np.empty_like(a)
    return 2 * size**3 / _best(lambda: np.matmul(a, a, out=out), seconds)


def _copy_rate(seconds: float, n_bytes: int = 1 << 25) -> float:
    source = np.ones(n_bytes, np.uint8)
    target = np.zeros(n_bytes, np.uint8)
    return 2 * n_bytes / _best(lambda: np.copyto(target, source), seconds)


def _best(act: Callable[[], object], seconds: float) -> float:
    """The shortest of as many runs as fit, after one to warm up; pauses let a busy machine hand out whole time
    slices."""
    act()
    best, stop = math.inf, time.perf_counter() + seconds
    while best == math.inf or time.perf_counter() < stop:
        time.sleep(0.002)
        begin = time.perf_counter()
        act()
        best = min(best, time.perf_counter() - begin)
    return max(best, 1e-9)


def processor_dtypes() -> tuple[str, ...]:
    """The dtypes that the processor multiplies in natively."""
    return ("float32", "bfloat16") if _has_bfloat16() else ("float32",)


def _has_bfloat16() -> bool:
    """Whether the processor reports that it multiplies bfloat16 (Linux on x86; elsewhere no)."""
    try:
        with open("/proc/cpuinfo") as lines:
            flags = next((line.split() for line in lines if line.startswith("flags")), [])
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_tile" in flags


def available_memory() -> int:
    """Bytes that can be taken without swapping, as the kernel estimates them; half of the machine's memory where it
    does not.

    A container's own limit is respected where the kernel shows one.
    """
    free = _meminfo_available() or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return min(free, _cgroup_available() or free)


def _meminfo_available() -> int | None:
    try:
        with open("/proc/meminfo") as lines:
            return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
    except OSError:
        return None


def _cgroup_available() -> int | None:
    """Bytes that the control group leaves, or None when it sets no limit."""
    try:
        with open("/sys/fs/cgroup/memory.max") as limit, open("/sys/fs/cgroup/memory.current") as used:
            text = limit.read().strip()
            return None if text == "max" else max(int(text) - int(used.read()), 1)
    except (OSError, ValueError):
        return None
