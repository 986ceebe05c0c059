"""What each attention backend can do, as data, and which of them serves a model at the lowest price."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType

import torch

from umbel import registry
from umbel.cost.attention import PRICES, UNKNOWN
from umbel.errors import UsageError
from umbel.ir.kv_shape import KVShape
from umbel.ir.spec import ModelSpec
from umbel.kernels.dispatch import has_gpu_kernels, kernels
from umbel.kernels.fp8 import converts_fp8
from umbel.technique import FEATURES, Capability

# Backends that are known and cannot be built, with what stands in their way.
REFUSED: Mapping[str, Capability] = MappingProxyType(
    {
        "flash-attention": Capability(
            ("cuda",),
            ("float16", "bfloat16"),
            page_tokens=256,
            package=("flash-attn", "2.5"),
            reproducible="unknown",
        )
    }
)

# Why a backend that does not take a feature cannot serve a model that asks for it.
_WITHOUT: Mapping[str, str] = MappingProxyType(
    {
        "mixed": "it takes layers that are all alike, and those of the model differ in heads or windows",
        "caps": "it caps no scores, and the model does",
        "sinks": "it has no sinks, and heads of the model have one",
        "unequal": "it takes values of the size of keys, and those of the model have another",
    }
)


def backends() -> dict[str, Capability]:
    """What every backend of the catalogue can do, and those that are refused. The first that can serve is the usual
    one; a later one takes its place where it is known to cost less."""
    return {row.name: row.can or Capability() for row in registry.rows("attention")} | REFUSED


@dataclass(frozen=True, slots=True)
class Case:
    """What is asked of attention: a device, a dtype, heads of some sizes; whether there is a sliding `window`, and what
    of FEATURES; whether keys and values are int8 or fp8 (and the device has instructions for it), whether something
    `selects` what layers read. `absent` says of backends why they are not on this machine."""

    device: str
    dtype: str
    head_dims: tuple[int, ...]
    window: bool = False
    features: tuple[str, ...] = ()
    fp8_kv: bool = False
    int8_kv: bool = False
    fp8_instructions: bool = False
    selects: bool = False
    absent: Mapping[str, str] | None = None

    @classmethod
    def of(
        cls, spec: ModelSpec, dtype: torch.dtype, device: torch.device, kv_dtype: str, selects: bool = False
    ) -> Case:
        """What a model asks that computes in `dtype`, with keys and values as EngineConfig.kv_cache_dtype says, and
        whether something `selects` what is read."""
        shapes = dict.fromkeys(spec.kv_shapes)
        return cls(
            device.type,
            str(dtype).removeprefix("torch."),
            tuple(sorted({dim for shape in shapes for dim in (shape.key_dim, shape.value_dim)})),
            window=any(shape.window is not None for shape in shapes),
            features=_features(list(shapes)),
            fp8_kv=kv_dtype == "fp8",
            int8_kv=kv_dtype == "int8",
            fp8_instructions=converts_fp8(device),
            selects=selects,
            absent=absences(),
        )

    @classmethod
    def usual(cls, device: torch.device) -> Case:
        """What a common model asks: heads of 128, in bfloat16 on a GPU and in float32 elsewhere."""
        dtype = "bfloat16" if device.type == "cuda" else "float32"
        return cls(device.type, dtype, (128,), fp8_instructions=converts_fp8(device), absent=absences())


@dataclass(frozen=True, slots=True)
class Choice:
    """The backend that is taken (`name`), why, and why the others are not (name and reason)."""

    name: str
    reason: str
    others: tuple[tuple[str, str], ...]


def absences() -> dict[str, str]:
    """Backends whose kernels are not on this machine, and why."""
    found = {}
    if not has_gpu_kernels():
        found["triton"] = "Triton is not installed, or UMBEL_TRITON=0 turns it off"
    if (choice := kernels()).native is None:
        found["native"] = choice.reason
    for name, can in backends().items():
        if can.package is not None and (why := _missing(*can.package)):
            found[name] = why
    return found


def missing(can: Capability, case: Case) -> str:
    """The first thing that a backend lacks for a case, '' where it can serve it."""
    if can.page_tokens != 1:
        return f"it reads whole pages of {can.page_tokens} tokens only, and runs of the forest end inside pages"
    if why := can.elsewhere(case.device):
        return why
    if case.dtype not in can.dtypes:
        return f"it computes in {' and '.join(can.dtypes)}, and the model in {case.dtype}"
    if can.head_dims and (others := [str(dim) for dim in case.head_dims if dim not in can.head_dims]):
        return f"it takes heads of {', '.join(map(str, can.head_dims))}, and the model has {', '.join(others)}"
    if case.window and not can.windows:
        return "it has no sliding windows, and the model has one"
    for feature in case.features:
        if feature not in can.features:
            return _WITHOUT[feature]
    if case.selects and not can.selects:
        return "it reads whole paths, and something selects what its layers read"
    return _missing_bits(can, case)


def _missing_bits(can: Capability, case: Case) -> str:
    """What it lacks for keys and values of 8 bits."""
    reads_fp8 = {"always": True, "with instructions": case.fp8_instructions, "never": False}[can.fp8_kv]
    if case.fp8_kv and not reads_fp8:
        return "it reads no keys and values in fp8" + ("" if can.fp8_kv == "never" else " on this device")
    if case.int8_kv and not can.int8_kv:
        return "it reads no keys and values in int8"
    return ""


def _features(shapes: Sequence[KVShape]) -> tuple[str, ...]:
    """What of FEATURES layers of these shapes ask for."""
    asked = {
        "mixed": len(shapes) > 1,
        "caps": any(shape.cap is not None for shape in shapes),
        "sinks": any(shape.sinks for shape in shapes),
        "unequal": any(shape.values_in_keys or shape.key_dim != shape.value_dim for shape in shapes),
    }
    return tuple(feature for feature in FEATURES if asked[feature])


def capability_of(name: str) -> Capability:
    """What a backend can do."""
    return registry.find("attention", name).can or Capability()


def choose(case: Case, asked: str = "auto") -> Choice:
    """The backend that was asked for, or for "auto" the cheapest of those that can serve and whose price is known,
    the usual one where nothing is. Raises UsageError where the one that was asked for cannot."""
    absent = case.absent or {}
    lacks = {name: missing(can, case) or absent.get(name, "") for name, can in backends().items()}
    if asked != "auto" and lacks[asked]:
        raise UsageError(f"attention_backend={asked!r} cannot serve this model here: {lacks[asked]}; 'auto' always can")
    able = [name for name, why in lacks.items() if not why]
    price = {name: PRICES.get(name, UNKNOWN).worst for name in able}
    name = min(able, key=price.__getitem__) if asked == "auto" else asked
    reason = "asked for by name" if asked != "auto" else "the usual one here" if name == able[0] else "the cheapest"
    others = tuple((other, why or _dearer(other, name)) for other, why in lacks.items() if other != name)
    return Choice(name, reason, others)


def _dearer(name: str, taken: str) -> str:
    """Why a backend that could serve is not taken."""
    price = PRICES.get(name)
    if price is None:
        return f"{taken} is there"
    return f"its price is {price.source}" if price.worst == float("inf") else f"{price.worst:g} times Triton's seconds"


def _missing(package: str, least: str) -> str:
    """Why a package is not there as it is needed, '' where it is."""
    try:
        found = version(package)
    except PackageNotFoundError:
        return f"{package} is not installed"
    return "" if _numbers(found) >= _numbers(least) else f"{package} {found} is here, and {least} is needed"


def _numbers(number: str) -> tuple[int, ...]:
    """A version as numbers that compare: "0.7.2.post1" as 0, 7, 2."""
    head = re.match(r"\d+(\.\d+)*", number)
    return tuple(map(int, head[0].split("."))) if head else ()
