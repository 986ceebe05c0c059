"""Real steps for attention tests: random forests through the scheduler, with poisoned memory and tiny decoders."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from tests.sched.drive import VOCAB, Job, apply, finish_full, scheduler_of
from umbel import registry
from umbel.attention.base import AttentionBackend
from umbel.attention.capabilities import Case, missing
from umbel.attention.native import NativeAttention
from umbel.cache.pages import PagePool
from umbel.ir.kv_shape import KVShape
from umbel.ir.layer import Layer
from umbel.ir.spec import ModelSpec
from umbel.ir.step import Step
from umbel.kernels.native.calls import INSTRUCTION_SETS, Native
from umbel.kernels.place import Place
from umbel.kernels.view import View
from umbel.kv.scaled import ScaledStore
from umbel.kv.store import KVStore
from umbel.runner.base import run_step
from umbel.runner.fake import FakeRunner
from umbel.sched.scheduler import Scheduler
from umbel.technique import Capability

CPU = torch.device("cpu")
Backend = Callable[[ModelSpec, KVStore], AttentionBackend]


def usable() -> dict[str, tuple[Backend, Capability]]:
    """Every backend of the catalogue that a processor can run: the compiled kernels once for each instruction set that
    it has, the others by name. The reference is what they are held to."""
    found: dict[str, tuple[Backend, Capability]] = {}
    for row in registry.rows("attention"):
        can = row.can or Capability()
        if row.name == "native":
            for name in INSTRUCTION_SETS:
                found[name] = lambda spec, store, name=name: NativeAttention(spec, store, Native(name)), can
        elif row.name != "reference" and not missing(can, Case("cpu", "float32", (*can.head_dims, 64)[:1])):
            found[row.name] = lambda spec, store, row=row: row.load()(spec, store, CPU), can
    return found


BACKENDS: Mapping[str, Backend] = {name: backend for name, (backend, _) in usable().items()}
CAN: Mapping[str, Capability] = {name: can for name, (_, can) in usable().items()}
NARROW = "bfloat16 "  # before the name of a backend that is at work in bfloat16


class Narrowed:
    """A backend in bfloat16 under a model that computes in float32."""

    def __init__(self, backend: AttentionBackend):
        self.backend = backend
        self.name = backend.name

    def prepare(self, step: Step) -> int:
        """Implement `AttentionBackend.prepare`."""
        return self.backend.prepare(step)

    def place(self, layer: int) -> Place:
        """Implement `AttentionBackend.place`."""
        return self.backend.place(layer)

    def attend(
        self, layer: int, q: torch.Tensor, select: View | None = None, sinks: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Implement `AttentionBackend.attend`."""
        return self.backend.attend(layer, q.bfloat16(), select, sinks).float()


def attend(
    backend: AttentionBackend,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    select: View | None = None,
    layer: int = 0,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """What a backend that was prepared for a step makes of a layer: keys and values are stored, then read."""
    place = backend.place(layer)
    place.write(k, None if place.values.data_ptr() == place.keys.data_ptr() else v)
    if sinks is None:  # a backend of another package need not know them
        return backend.attend(layer, q, select)
    return backend.attend(layer, q, select, sinks)


def poisoned_backend(name: str, spec: ModelSpec, n_pages: int, page_size: int) -> AttentionBackend:
    """The backend of that name over memory full of NaN."""
    if not name.startswith(NARROW):
        return BACKENDS[name](spec, poisoned_store(spec, n_pages, page_size))
    store = poisoned_store(spec, n_pages, page_size, torch.bfloat16)
    return Narrowed(BACKENDS[name.removeprefix(NARROW)](spec, store))


@dataclass(frozen=True, slots=True)
class MixedSpec(ModelSpec):
    """A model whose layers have the attention of `shapes`."""

    shapes: tuple[KVShape, ...] = ()

    def kv_shape(self, layer: int) -> KVShape:
        """The attention of a layer."""
        return self.shapes[layer]


BORDERS = (1, 15, 16, 17, 100, 127, 128, 129, 140, 255, 256, 257, 300)


def spec_of(n_kv_heads: int, group: int, head_dim: int, window: int | None = None) -> ModelSpec:
    """Enough of a model for attention: one layer."""
    return ModelSpec(
        "qwen3",
        97,
        48,
        1,
        n_kv_heads * group,
        n_kv_heads,
        head_dim,
        64,
        4096,
        1e-6,
        1e4,
        layers=(Layer(window=window),),
    )


def mixed_spec(*shapes: KVShape) -> MixedSpec:
    """Enough of a model for attention: a layer for each shape."""
    return MixedSpec("gemma3", 97, 48, len(shapes), 8, 2, 16, 64, 4096, 1e-6, 1e4, shapes=shapes)


def random_job(rng: random.Random, n_rows: int, longest: int = 300, out: int = 12) -> Job:
    """Rows that fork from a few long bases at grid, page and odd positions; some equal, some with several samples."""
    bases = [[rng.randrange(VOCAB) for _ in range(longest)] for _ in range(2)]
    prompts = []
    for _ in range(n_rows):
        cut = rng.choice([length for length in BORDERS if length <= longest])
        prompts.append(rng.choice(bases)[:cut] + [rng.randrange(VOCAB) for _ in range(rng.choice((0, 1, 3, 40, 130)))])
    return Job(prompts, [rng.choice((1, 1, 1, 3)) for _ in prompts], [rng.randrange(1, out) for _ in prompts])


def steps_of(job: Job, n_pages: int, page_size: int, chunk: int) -> Iterator[tuple[Scheduler, Step]]:
    """Every step of a job, before its result is applied."""
    scheduler = scheduler_of(job, n_pages, page_size, chunk)
    runner = FakeRunner(n_pages, page_size, VOCAB)
    while (step := scheduler.next()) is not None:
        yield scheduler, step
        finish_full(job, scheduler, apply(scheduler, run_step(runner, step)), {})


def poisoned_store(
    spec: ModelSpec, n_pages: int, page_size: int, dtype: torch.dtype = torch.float32, device: torch.device = CPU
) -> KVStore:
    """A store full of NaN, so that reading unwritten slots shows."""
    return poison(KVStore(spec, n_pages, page_size, dtype, device))


def poison(store: KVStore, slots: torch.Tensor | slice = slice(None)) -> KVStore:
    """NaN into some slots, with their scales where there are any."""
    for tensor in store.keys + store.values:
        if tensor.itemsize == 1:  # torch fills no fp8 by index; NaN of e4m3 is 127
            tensor.view(torch.uint8)[:, slots] = 127
        else:
            tensor[:, slots] = torch.nan
    for tensor in store.key_scales + store.value_scales if isinstance(store, ScaledStore) else ():
        tensor[:, slots] = torch.nan
    return store


def poison_free_pages(pool: PagePool, *stores: KVStore) -> None:
    """NaN into every page that is free now: a later reader of a page given up sees it."""
    free = np.flatnonzero(pool._is_free)
    slots = torch.from_numpy((free[:, None] * pool.page_size + np.arange(pool.page_size)).ravel())
    for store in stores:
        poison(store, slots)


def random_qkv(
    spec: ModelSpec, rows: int, generator: torch.Generator, dtype: torch.dtype, layer: int = 0
) -> list[torch.Tensor]:
    """Queries, keys and values of a step; some scores are large, so that the running maximum matters."""
    s, scale = spec.kv_shape(layer), (4.0, 1.0, 1.0)
    shapes = [(rows, s.n_heads, s.key_dim), (rows, s.n_kv_heads, s.key_dim), (rows, s.n_kv_heads, s.value_dim)]
    return [(torch.randn(s, generator=generator) * c).to(dtype) for s, c in zip(shapes, scale, strict=True)]


def random_sinks(shape: KVShape, generator: torch.Generator) -> torch.Tensor | None:
    """A layer's sinks, if it has some: small and large ones."""
    return torch.randn(shape.n_heads, generator=generator) * 4 if shape.sinks else None
