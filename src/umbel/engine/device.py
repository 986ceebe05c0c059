"""Which device a model is on, and what that device can do at most."""

from __future__ import annotations

import re

import torch

from umbel.cost.cards import CARDS, named
from umbel.cost.machine import Machine
from umbel.errors import UsageError
from umbel.models.shards import Shard
from umbel.runner.speed import measure_gpu


def pick_device(name: str) -> torch.device:
    """The device asked for; "auto" is CUDA where there is one. Raises UsageError for one that is not here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"device={name!r}: must be auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and not torch.cuda.is_available()):
        raise UsageError(f"device={name!r}: not on this machine; use auto or cpu")
    return device


def device_of(name: str, shard: Shard) -> str:
    """Where a rank of a model on `name` is: GPUs in their order."""
    on_gpu = name.startswith("cuda") or (name == "auto" and torch.cuda.is_available())
    return f"cuda:{shard.rank}" if on_gpu and shard.count > 1 else name


def machine_of(device: torch.device) -> Machine:
    """Ceilings of the device that the model is on, with the memory that is free on it now."""
    if device.type == "cpu":
        return named("this")
    free, _ = torch.cuda.mem_get_info(device)
    name = torch.cuda.get_device_name(device)
    known = sheet_of(name)
    return measure_gpu(device, name, free) if known is None else named(known).with_memory(free)


def sheet_of(name: str) -> str | None:
    """The card in cost.cards that a device of this name is, as far as its name says so."""
    words = set(re.findall(r"\w+", name.lower()))  # a GH200 is no H200
    if words & {"pcie", "nvl"}:  # slower than the sheets, which are of SXM modules
        return None
    if "4090" in words and "laptop" not in words:
        return "rtx4090"
    found = next((sheet for sheet in CARDS if sheet in words), None)
    return "a100-40gb" if found == "a100" and "40gb" in words else found
