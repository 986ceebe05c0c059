"""Which kernels run on this machine: the compiled ones where they were built, plain torch otherwise.

The environment variable UMBEL_NATIVE turns them off (`0`) or names an instruction set (`generic`, `avx2`, `avx512`,
`avx512_bf16`: AVX-512 whose attention multiplies bfloat16 as such; `amx`: the same with products by the matrix unit).
UMBEL_OPENMP=0 gives them threads of their own instead of torch's. On a GPU they are Triton's, where it is installed;
UMBEL_TRITON=0 turns these off.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

from torch import Tensor

from umbel.kernels.native.calls import INSTRUCTION_SETS, WHY_NOT, Native

if TYPE_CHECKING:
    from umbel.kernels.triton.rows import TritonRows

VARIABLE = "UMBEL_NATIVE"


@dataclass(frozen=True, slots=True)
class KernelChoice:
    """The kernels of this process: `native` is None for plain torch; `reason` says why, for people."""

    native: Native | None
    reason: str

    @property
    def name(self) -> str:
        """ "torch", or the instruction set of the compiled kernels."""
        return "torch" if self.native is None else self.native.instruction_set


@cache
def kernels() -> KernelChoice:
    """The kernels of this process, chosen at the first call."""
    return choose(os.environ.get(VARIABLE, ""))


def has_gpu_kernels() -> bool:
    """Whether Triton is installed and not turned off, which takes less time than to import it."""
    return os.environ.get("UMBEL_TRITON") != "0" and find_spec("triton") is not None


@cache
def gpu_kernels() -> TritonRows | None:
    """The kernels of GPUs: None where Triton is not installed or turned off."""
    if not has_gpu_kernels():
        return None
    from umbel.kernels.triton.rows import TritonRows

    return TritonRows()


def kernels_for(*tensors: Tensor) -> Native | TritonRows | None:
    """The kernels that can work on these tensors, if any."""
    found = gpu_kernels() if tensors[0].is_cuda else kernels().native
    return found if found is not None and found.takes(*tensors) else None


def choose(asked: str) -> KernelChoice:
    """The kernels for a value of UMBEL_NATIVE ('' = the best there are)."""
    if asked == "0":
        return KernelChoice(None, f"compiled kernels are turned off by {VARIABLE}=0")
    if not INSTRUCTION_SETS:
        return KernelChoice(
            None, f"no compiled kernels: they are built at install time where there is a compiler ({WHY_NOT})"
        )
    name = INSTRUCTION_SETS[0] if asked in ("", "1") else asked
    if name not in INSTRUCTION_SETS:
        return KernelChoice(None, f"{VARIABLE}={asked}: not on this processor, which has {', '.join(INSTRUCTION_SETS)}")
    why = "the best that this processor has" if name == INSTRUCTION_SETS[0] else f"asked for by {VARIABLE}"
    native = Native(name)
    return KernelChoice(native, f"compiled kernels for {name}: {why}; on {_THREADS[native.threads]}")


_THREADS = {"openmp": "torch's threads", "threads": "threads of their own"}
