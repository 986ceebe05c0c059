"""Checks and times everything on one GPU in a single call, and keeps every row of its tables as soon as it is there.

    python -m bench.gpu --out DIR [--minutes 10] [--only floors,checks,kernels,fit,model,grid] [--peer vllm[=PYTHON]]
                        [--rows N] [--points 2000/200x16,...] [--arms shuffled/capped,...] [--repeats 20] [--no-graphs]
                        [--small]

Needs the repository on PYTHONPATH with its src, torch and Triton; nothing is downloaded. Each part has its share of the
minutes, stops when that is spent and says what it left out. `DIR/result.json` and `DIR/result.md` have everything. The
exit status is 1 when a check or a part has failed. --small runs tiny shapes on the processor, the kernels in Triton's
interpreter (TRITON_INTERPRET=1): a check of the script, whose figures mean nothing.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType

import torch

from bench.gpu.findings import Findings
from bench.gpu.stage import Asked, Stage, device_name

Part = Callable[[Stage], None]
SHARES: Mapping[str, float] = MappingProxyType(
    {"floors": 0.02, "checks": 0.16, "kernels": 0.2, "fit": 0.08, "model": 0.22, "grid": 0.32}
)
RESERVE = 10.0  # seconds kept for the end


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts; 0 when nothing has failed."""
    asked = _arguments(arguments)
    if not asked.small and not torch.cuda.is_available():
        print("torch finds no GPU: give --small to check the script on the processor", file=sys.stderr)
        return 2
    if asked.small:
        os.environ.setdefault("TRITON_INTERPRET", "1")  # read where kernels are imported, which is in `parts`
    device = torch.device("cpu" if asked.small else "cuda")
    found = Findings(asked.out, _about(device))
    settings = Asked(
        asked.small,
        *map(_listed, (asked.peer, asked.points, asked.arms)),
        asked.rows,
        asked.repeats,
        not asked.no_graphs,
    )
    with tempfile.TemporaryDirectory(prefix="umbel-gpu-", dir=asked.scratch) as scratch:
        stage = Stage(
            device, torch.float32 if asked.small else torch.bfloat16, settings, found, scratch=Path(scratch).resolve()
        )
        run_parts(stage, asked.names, time.monotonic() + asked.minutes * 60 - RESERVE)
    print(f"\n{'all passed' if found.passed else 'SOMETHING FAILED'}; tables in {asked.out / 'result.md'}", flush=True)
    return 0 if found.passed else 1


def parts() -> Mapping[str, Part]:
    """What each name runs; imported late, see `main`."""
    from bench.gpu.attention import time_kernels
    from bench.gpu.checks import check_answers
    from bench.gpu.fit import fit_switch
    from bench.gpu.floors import measure_floors
    from bench.gpu.grid import run_grid
    from bench.gpu.model import time_model

    return {"floors": measure_floors, "checks": check_answers, "kernels": time_kernels, "fit": fit_switch,
            "model": time_model, "grid": run_grid}  # fmt: skip


def run_parts(stage: Stage, names: Sequence[str], end: float) -> None:
    """Run the parts one after the other; unused time of a part goes to later ones, and its errors stay in it."""
    known, waiting = parts(), list(names)
    while waiting:
        name = waiting[0]
        share = SHARES[name] / sum(SHARES[n] for n in waiting)
        stage.deadline = time.monotonic() + max(end - time.monotonic(), 0.0) * share
        stage.found.begin(name)
        try:
            known[name](stage)
            stage.found.end("done" if stage.left > 0 else "stopped")
        except Exception as error:  # one part must not cost the others
            traceback.print_exc()
            stage.found.note(f"{type(error).__name__}: {str(error)[:500]}")
            stage.found.end("failed")
        stage.free()
        waiting.pop(0)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(filter(None, text.split(",")))


def _about(device: torch.device) -> dict[str, str]:
    date = time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime())
    command = " ".join(["python -m bench.gpu", *sys.argv[1:]])
    return {"device": device_name(device), "date": date, "command": command, "versions": _versions()}


def _versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for name in ("torch", "triton", "transformers", "flash-attn", "flashinfer-python", "vllm"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    return ", ".join(found)


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--only", default="", help="parts, by commas; floors always runs first")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--peer", default="vllm", help="vllm, vllm=PYTHON or none")
    parser.add_argument("--rows", type=int, default=0, help="of each workload of the grid; 0: as many as fit")
    parser.add_argument("--points", default="", help="of the grid; PREFIX/OWNxDEGREE, by commas")
    parser.add_argument("--arms", default="", help="of the grid, as shuffled/capped, by commas")
    parser.add_argument("--repeats", type=int, default=20, help="of each timed call")
    parser.add_argument("--no-graphs", action="store_true", help="time calls as they are, with their launches")
    parser.add_argument("--scratch", type=Path, help="folder for what is not kept")
    asked = parser.parse_args(arguments)
    asked.names = list(SHARES) if not asked.only else ["floors", *(n for n in _listed(asked.only) if n != "floors")]
    for name in asked.names:
        if name not in SHARES:
            parser.error(f"--only {name}: must be one of {', '.join(SHARES)}")
    return asked


if __name__ == "__main__":
    sys.exit(main())
