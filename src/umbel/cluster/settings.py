"""The settings of a replica, made from those of the user, and what replicas cannot do."""

from __future__ import annotations

from dataclasses import replace

from umbel.config import EngineConfig
from umbel.cost.devices import threads_of_each
from umbel.errors import UsageError


def check_replicas(config: EngineConfig, *, profiled: bool = False) -> None:
    """Raise UsageError for settings that exclude several replicas."""
    count = config.data_parallel_size
    if config.tensor_parallel_size > 1 and config.executor == "local":
        raise UsageError(
            f"data_parallel_size={count} with tensor_parallel_size={config.tensor_parallel_size}: a replica on this "
            "machine is one device; leave one of them out, or take executor='ray'"
        )
    if ":" in config.device:
        raise UsageError(f"device={config.device!r}: names one device, for {count} replicas; use cuda or cpu")
    if profiled:
        raise UsageError(
            f"--profile with data_parallel_size={count}, executor={config.executor!r}: it records this process; "
            "profile one replica alone"
        )


def config_of_replica(config: EngineConfig, number: int, n_gpus: int) -> EngineConfig:
    """The settings of one replica: a GPU of its own where there are some, else its part of the processor's threads."""
    count = config.data_parallel_size
    if config.device == "cuda" or (config.device == "auto" and n_gpus):
        if n_gpus < count:
            raise UsageError(f"data_parallel_size={count}: {n_gpus} GPUs are on this machine; lower it, or device=cpu")
        return replace(config, device=f"cuda:{number}", data_parallel_size=1)
    return replace(config, device="cpu", threads=threads_of_each(config.threads, count), data_parallel_size=1)
