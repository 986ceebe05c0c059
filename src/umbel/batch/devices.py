"""The device that a run would take here, found without torch where there is no accelerator."""

from __future__ import annotations

from pathlib import Path

from umbel.cost.machine import Machine, this_machine

DRIVERS = (Path("/proc/driver/nvidia/version"), Path("/dev/nvidiactl"), Path("/dev/dxg"))  # the last one is WSL's


def machine_here(device: str) -> Machine:
    """The machine that an engine with the option `device` runs on. Raises UsageError for a device that is not here."""
    if device == "cpu" or (device == "auto" and not has_driver()):
        return this_machine()
    from umbel.engine.device import machine_of, pick_device  # which import torch

    return machine_of(pick_device(device))


def has_driver() -> bool:
    """Whether this system has a driver of accelerators that torch may use."""
    return any(path.exists() for path in DRIVERS)
