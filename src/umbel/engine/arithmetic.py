"""What the last bits of answers depend on beside what was asked for: all that this machine and installation decide."""

from __future__ import annotations

from importlib.metadata import version

import torch

from umbel.attention.pick import check_attention
from umbel.config import EngineConfig
from umbel.engine.device import pick_device
from umbel.ir.spec import ModelSpec
from umbel.kernels.dispatch import gpu_kernels, kernels
from umbel.models.weights import pick_dtype


def arithmetic_of(config: EngineConfig, spec: ModelSpec) -> dict[str, str]:
    """The parts of the identity of `config` that are "auto" there (config.DECIDED_HERE), as they are here. Raises
    UsageError for what this machine has not got.

    Products in float32 are torch's own: their last bits may differ between processors with the same instructions, too.
    """
    device = pick_device(config.device)
    dtype = pick_dtype(config.dtype, spec, device)
    return {
        "dtype": str(dtype).removeprefix("torch."),
        "attention_backend": check_attention(config, spec, dtype, device).name,
        "device": "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device),
        "kernels": kernels().name if device.type == "cpu" else "torch" if gpu_kernels() is None else "triton",
        "model_impl": "native" if spec.hosted is None else f"transformers {version('transformers')}",
        "torch": f"{torch.__version__} {torch.backends.cpu.get_cpu_capability()}",
    }
