"""Ceilings of several devices together, and of one of several replicas that share a processor."""

from __future__ import annotations

from dataclasses import replace

from umbel.cost.cards import counted, named
from umbel.cost.history import default_threads
from umbel.cost.machine import Machine, machine_name

SUM_SECONDS = 2e-5  # for the least sum over devices of one machine; an estimate


def shared_by(machine: Machine, count: int) -> Machine:
    """One of `count` equal parts of a processor: of its arithmetic, its memory bandwidth and its free memory.

    It has its own identity in the history, because steps that share a processor say nothing about steps that run alone.
    A GPU is not shared.
    """
    if count == 1 or machine.on_gpu:
        return machine
    name = f"1/{count} of {machine_name(machine)}"
    return replace(
        machine,
        name=name,
        identity=name,
        matmul_flops=machine.matmul_flops / count,
        matmul_flops_16=machine.matmul_flops_16 / count,
        memory_rate=machine.memory_rate / count,
        memory_bytes=machine.memory_bytes // count,
        source=f"{machine.source}; shared by {count} replicas",
    )


def machine_of(name: str) -> Machine:
    """A machine by name (cost.cards.counted): several accelerators hold a part of every layer each. Raises
    UsageError."""
    count, kind = counted(name)
    return joined(named(kind), count)


def joined(machine: Machine, count: int) -> Machine:
    """`count` such devices that each hold a part of every layer (tensor parallel): their arithmetic, memory and
    bandwidth added up, with two all-reduces in each layer.

    It has its own identity in the history. Only the latency of the all-reduces is priced, not their bytes, which depend
    on how the devices are connected: measured runs show that. Processes of one processor have no more than it has.
    """
    if count == 1 or not machine.on_gpu:
        return machine
    name = f"{count} x {machine_name(machine)}"
    return replace(
        machine,
        name=name,
        identity=name,
        matmul_flops=machine.matmul_flops * count,
        matmul_flops_16=machine.matmul_flops_16 * count,
        memory_rate=machine.memory_rate * count,
        memory_bytes=machine.memory_bytes * count,
        layer_overhead=machine.layer_overhead + 2 * SUM_SECONDS,
        source=f"{count} times {machine.source}",
    )


def threads_of_each(asked: int | None, count: int) -> int:
    """Threads of a replica on a processor: as asked for each, or an equal part of all."""
    return asked or max(default_threads() // count, 1)
