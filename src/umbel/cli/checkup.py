"""The checks of `umbel doctor` except those of a model: versions, hardware, the speed of plain operations, the cache
folder."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from umbel import registry
from umbel.attention.capabilities import Case, choose
from umbel.attention.pick import check_attention
from umbel.config import EngineConfig
from umbel.cost.json_cache import cache_folder
from umbel.cost.machine import available_memory, processor_name
from umbel.kernels.dispatch import gpu_kernels, kernels
from umbel.models.families import read_spec, resolve_model
from umbel.models.weights import pick_dtype
from umbel.runner.speed import copy_rate, product_rate

PACKAGES = (
    "umbel",
    "torch",
    "triton",
    "numpy",
    "tokenizers",
    "safetensors",
    "transformers",
    "flashinfer-python",
    "pyarrow",
    "orjson",
)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter; missing ones are left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def hardware(device: torch.device) -> dict[str, Any]:
    """Processor, cores, threads, load, free memory, and the accelerator if there is one."""
    found: dict[str, Any] = {
        "device": str(device),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
        "free_memory_bytes": available_memory(),
    }
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        found |= {"gpu": torch.cuda.get_device_name(device), "gpu_free_bytes": free, "gpu_total_bytes": total}
    return found


def kernels_used(device: torch.device) -> dict[str, str]:
    """Which kernels a model on this device would use, and why."""
    if device.type != "cpu":
        if gpu_kernels() is not None:
            return {"name": "triton", "reason": "Triton's kernels, compiled when they are first used"}
        return {"name": "torch", "reason": "plain torch: Triton is not installed, or UMBEL_TRITON=0 turns it off"}
    choice = kernels()
    return {"name": choice.name, "reason": choice.reason}


def attention_used(device: torch.device, config: EngineConfig, *, named: bool) -> dict[str, Any]:
    """The attention backend that the model of `config` would use on this device (without a `named` one, a common
    model), the reason, and why not the others. Raises UsageError when the backend asked for cannot serve it."""
    if named:
        spec = read_spec(resolve_model(config.model), config.model_impl)
        choice = check_attention(config, spec, pick_dtype(config.dtype, spec, device), device)
    else:
        choice = choose(Case.usual(device), config.attention_backend)
    return {"name": choice.name, "reason": choice.reason, "others": dict(choice.others)}


def added_techniques() -> dict[str, str]:
    """Techniques that other packages bring, by family and name: "ready", or why they cannot be used."""
    rows = (row for row in registry.rows() if not registry.is_built_in(row))
    return {f"{row.family}: {row.name}": "ready" for row in rows} | dict(registry.faults())


def ceilings(device: torch.device, seconds: float = 0.4) -> dict[str, dict[str, float]]:
    """Best and usual rates of the products of models in each dtype (FLOP/s) and of large copies (bytes/s); `seconds`
    for each."""
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    rates = {f"matmul {name}": product_rate(dtype, device, seconds) for name, dtype in dtypes.items()}
    return {name: asdict(rate) for name, rate in {**rates, "copy": copy_rate(device, seconds)}.items()}


def cache() -> dict[str, Any]:
    """The folder of histories, and whether it works; the folder is None when they are switched off."""
    folder = cache_folder()
    if folder is None:
        return {"folder": None, "writable": False, "histories": 0}
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    writable = nearest.is_dir() and os.access(nearest, os.W_OK)
    count = len(list(folder.glob("steps-*.json"))) if folder.is_dir() else 0
    return {"folder": str(folder), "writable": writable, "histories": count}


def advice(found: dict[str, Any]) -> list[str]:
    """Possible improvements, one sentence each; `found` is the report so far (its model part may be missing)."""
    machine, rates, model = found["machine"], found["ceilings"], found.get("model")
    lines = []
    if machine["device"] == "cpu" and machine["threads"] > machine["cores"]:
        lines.append(f"{machine['threads']} threads on {machine['cores']} cores slow each other down: use fewer.")
    if machine["device"] == "cpu" and machine["load"] > 0.6 * machine["cores"]:
        lines.append(f"Other work is running (load {machine['load']}): figures are low, and runs will vary with it.")
    shaky = [name for name, rate in rates.items() if rate["best"] > 2.5 * rate["usual"]]
    if shaky:
        lines.append(f"Speed varies by more than 2.5 times ({', '.join(shaky)}): cores are shared with other work.")
    slow = rates["matmul float32"]["usual"] / rates["matmul bfloat16"]["usual"]
    if model is not None and model["dtype"] == "bfloat16" and slow > 1.2:
        lines.append(f"bfloat16 matmuls are {slow:.1f} times slower than float32 here: use --dtype float32.")
    if model is not None and model["dtype"] == "float32" and model["own_dtype"] == "bfloat16" and slow < 0.7:
        lines.append(
            f"bfloat16 matmuls are {1 / slow:.1f} times faster than float32 here: --dtype bfloat16 is quicker."
        )
    if found["cache"]["folder"] is None:
        lines.append("UMBEL_CACHE=off: plans start from ceilings each time, and no measurements of runs are kept.")
    elif not found["cache"]["writable"]:
        lines.append(f"{found['cache']['folder']} cannot be written: set UMBEL_CACHE to a folder that can.")
    return lines
