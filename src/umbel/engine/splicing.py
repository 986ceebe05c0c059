"""Documents are computed once, each alone, and kept beside the pool; every prompt that has one gets a copy, whose keys
are turned to where it stands."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from umbel import registry
from umbel.ir.spec import ModelSpec
from umbel.kv.blocks import slabs_of
from umbel.kv.store import KVStore
from umbel.models.rotary import frequencies_of, rotary_angles
from umbel.sched.phases.documents import Key

Ints = NDArray[np.int64]


class CopyTally:
    """Counts `tokens` of documents that were copied instead of computed, of all jobs of a model."""

    def __init__(self) -> None:
        self.tokens = 0


class TurboRAG:
    """Documents as they were computed, at position 0, of at most `kept` tokens in all: those that were read least
    recently are given up. What is copied is counted in `tally`. Implements `sched.phases.documents.Copies`, as TurboRAG
    (2410.07590) has it.

    A product of a rotated query and a rotated key depends on how far apart they stand alone. So keys that were rotated
    for position j become those for p + j by one more rotation, for p: of each pair of numbers, by p times its
    frequency, without the factor that some models stretch cosines by, which keys have already.
    """

    def __init__(self, settings: Mapping[str, float], spec: ModelSpec, store: KVStore, tally: CopyTally):
        self.store, self.tally, self.most_tokens = store, tally, int(settings["kept"])
        attending = [spec.layer(layer) for layer in range(spec.n_layers)]
        device = store.keys[0].device
        self._radians = [frequencies_of(spec, layer.rope).radians.to(device) for layer in attending]
        self._kept: OrderedDict[Key, Mapping[str, Tensor]] = OrderedDict()
        self._held = 0

    def __contains__(self, key: Key) -> bool:
        return key in self._kept

    @torch.inference_mode()
    def keep(self, key: Key, slots: Ints, position: int) -> None:
        """Implement `Copies.keep`."""
        at = self._on_device(slots)
        block = {name: slab[:, at] for name, slab in slabs_of(self.store).items()}
        self._write(block, at, position)
        self._held += len(slots)
        self._kept[key] = block
        while self._held > self.most_tokens:
            _, old = self._kept.popitem(last=False)
            self._held -= next(iter(old.values())).shape[1]

    @torch.inference_mode()
    def put(self, key: Key, slots: Ints, position: int) -> None:
        """Implement `Copies.put`."""
        self._kept.move_to_end(key)
        self._write(self._kept[key], self._on_device(slots), position)
        self.tally.tokens += len(slots)

    def _on_device(self, slots: Ints) -> Tensor:
        return torch.from_numpy(slots).to(self.store.keys[0].device)

    def _write(self, block: Mapping[str, Tensor], at: Tensor, position: int) -> None:
        for layer, radians in enumerate(self._radians):
            self.store.keys[layer][:, at] = turned(block[f"keys.{layer}"], radians, position)
            self.store.values[layer][:, at] = block[f"values.{layer}"]


def turned(keys: Tensor, radians: Tensor, position: int) -> Tensor:
    """Rotated keys (`[heads, tokens, key_dim]`) so many positions further on; `radians` are those of each pair (float32
    `[key_dim / 2]`). In float32 and then rounded; at 0 the very same."""
    cos, sin = rotary_angles(torch.tensor([position], device=keys.device), radians, torch.float32)
    first, second = keys.float().chunk(2, -1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1).to(keys.dtype)


def load_copies(techniques: Sequence[str], spec: ModelSpec, store: KVStore, tally: CopyTally) -> TurboRAG | None:
    """What `--technique` names that computes documents apart; None where nothing does."""
    for asked in techniques:
        row = registry.at("technique", asked)
        if row is not None and row.family == "reuse":
            found: TurboRAG = registry.load("reuse", row.name, row.settings_of(asked), spec, store, tally)
            return found
    return None
