"""The part `fit`: when one pass over a shared run beats reading it row by row, measured, and the rule fitted to that.

A run of `keys` keys that `readers` rows share gets a pass of its own when (readers - 1) * keys * share_factor is more
than its readers' partial results, readers * group. Both ways are timed on a grid; the fitted factor is the one whose
choices lose the least time against always taking the faster way. `switch.json` in the results' folder is what
`src/umbel/attention/switch.json` should become.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from bench.gpu.findings import write_whole
from bench.gpu.stage import Stage, device_name, time_calls
from bench.gpu.trees import PAGE, decodes, step_of
from umbel.attention.switch import shipped_switch
from umbel.attention.triton import TritonAttention
from umbel.ir.spec import ModelSpec
from umbel.kv.store import KVStore

READERS, KEYS, GROUPS, OWN = (2, 4, 8, 16, 64, 256), (16, 32, 64, 128, 256, 512, 2048), (1, 4, 8), 64
ALWAYS, NEVER = 1e9, 0.0


@dataclass(frozen=True, slots=True)
class Trial:
    """Milliseconds of both ways on one case."""

    readers: int
    keys: int
    group: int
    one_pass: float
    per_row: float

    @property
    def gain(self) -> float:
        """Keys spared over partial results: a pass is made where this times the share factor is above one."""
        return (self.readers - 1) * self.keys / (self.readers * self.group)

    def taken(self, share_factor: float) -> float:
        """Milliseconds of what a share factor chooses."""
        return self.one_pass if share_factor * self.gain > 1 else self.per_row


def best_factor(trials: Sequence[Trial]) -> float:
    """The share factor that loses least, each case weighing the same; between two neighbours in gain, their geometric
    mean."""
    gains = sorted({trial.gain for trial in trials})
    borders = [gains[0] / 2, *(math.sqrt(a * b) for a, b in pairwise(gains)), gains[-1] * 2]
    return min((1 / border for border in borders), key=lambda share_factor: loss(trials, share_factor))


def loss(trials: Sequence[Trial], share_factor: float) -> float:
    """Mean of time taken over the faster way's, less one."""
    return sum(t.taken(share_factor) / min(t.one_pass, t.per_row) for t in trials) / len(trials) - 1


@torch.inference_mode()
def fit_switch(stage: Stage) -> None:
    """Time the grid, fit, and write the switch."""
    grid = [(readers, keys, group) for group in GROUPS for keys in KEYS for readers in READERS]
    random.Random(0).shuffle(grid)  # so that a part of it is of all kinds
    if stage.small:
        grid = [(2, 16, 4), (4, 48, 4)]
    trials = []
    for readers, keys, group in stage.each("the grid", grid, 0.0 if stage.small else 1.5):
        trial = _try(stage, readers, keys, group)
        trials.append(trial)
        faster = "pass" if trial.one_pass < trial.per_row else "rows"
        stage.found.row(
            "One pass or row by row", readers=readers, keys=keys, group=group, gain=trial.gain,
            **{"one pass ms": trial.one_pass, "per row ms": trial.per_row, "faster": faster},
        )  # fmt: skip
    if trials:
        write_switch(stage, trials)


def _try(stage: Stage, readers: int, keys: int, group: int) -> Trial:
    n_kv, dim = (1, 16) if stage.small else (8, 128)
    spec = ModelSpec("llama", 97, 48, 1, n_kv * group, n_kv, dim, 64, 1 << 20, 1e-6, 1e4)
    step = step_of(decodes(readers, keys, OWN), sampled=False)
    store = KVStore(spec, len(step.pages), PAGE, stage.dtype, stage.device)
    for tensor in store.keys + store.values:
        tensor.normal_()
    q = torch.randn((step.n_rows, spec.n_heads, spec.head_dim), device=stage.device).to(stage.dtype)
    attention, taken = TritonAttention(spec, store, stage.device), []
    for share_factor in (ALWAYS, NEVER):
        attention.share_factor = share_factor
        attention.prepare(step)
        taken.append(time_calls(lambda: attention.attend(0, q), stage).ms)
    return Trial(readers, keys, group, *taken)


def write_switch(stage: Stage, trials: Sequence[Trial]) -> None:
    """The data file, with what was measured and where; off a GPU it is not called fitted."""
    share_factor, before = best_factor(trials), shipped_switch().share_factor
    stage.found.row(
        "Switch",
        share_factor=share_factor,
        loses=loss(trials, share_factor),
        before=before,
        **{"lost before": loss(trials, before)},
    )
    on_gpu = stage.device.type == "cuda"
    found = {
        "share_factor": float(f"{share_factor:.4g}"),
        "fitted": on_gpu,
        "source": f"python -m bench.gpu --only fit: {len(trials)} cases, {stage.dtype}",
        "device": device_name(stage.device),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    write_whole(stage.found.folder / "switch.json", json.dumps(found, indent=2) + "\n")
