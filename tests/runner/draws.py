"""Sampling columns for tests, and a slow sampler to hold the fast one to."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from umbel.ir.randomness import noise_keys, streams
from umbel.ir.step import Sampling
from umbel.ir.token_masks import all_but

DEFAULTS: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "logprobs": -1}


def sampling_of(
    n: int, *, banned: dict[int, tuple[int, ...]] | None = None, width: int = 0, **columns: Any
) -> Sampling:
    """`n` draws from row 0, keyed by their number; single values stand for all draws. `banned` are the ids that a draw
    must not give, of a vocabulary of `width` tokens."""
    floats = ("temperature", "top_p", "min_p")
    values = DEFAULTS | {"at": 0, "seeds": 1, "keys": np.arange(n), "samples": 0, "positions": 5} | columns
    wide = {
        k: np.broadcast_to(np.asarray(v, float if k in floats else np.int64), (n,)).copy() for k, v in values.items()
    }
    shared = np.zeros(n, bool)
    if banned:
        wide["mask"] = np.full(n, -1)
        wide["mask"][list(banned)] = np.arange(len(banned))
        wide["masks"] = np.stack([all_but(ids, width) for ids in banned.values()])
    return Sampling(streams=streams(wide.pop("seeds"), wide["keys"], shared), **wide)


def kept(logits: np.ndarray, temperature: float, top_k: int, top_p: float, min_p: float) -> np.ndarray:
    """Which ids the filters leave, one filter after the other, by sorting pairs (larger first, then lower id)."""
    scaled = logits.astype(np.float64) / temperature
    p = np.exp(scaled - scaled.max())
    alive = p >= min_p * p.max()
    order = sorted(range(len(p)), key=lambda i: (-p[i], i))
    if top_k:
        alive[[i for i in order if alive[i]][top_k:]] = False
    left = [i for i in order if alive[i]]
    total, before = p[left].sum(), 0.0
    for place, i in enumerate(left):
        if place and before >= top_p * total:
            alive[i] = False
        before += p[i]
    return alive


def slow_sample(logits: np.ndarray, sampling: Sampling, i: int) -> int:
    """The id of sample `i`, from the definition: filters, then the race of its noise."""
    row = logits[sampling.at[i]].astype(np.float64)
    if sampling.mask is not None and sampling.masks is not None and sampling.mask[i] >= 0:
        words = sampling.masks[sampling.mask[i]].tolist()
        row = np.array([x if words[token // 32] >> token % 32 & 1 else -np.inf for token, x in enumerate(row)])
    heat = sampling.temperature[i]
    if heat == 0:
        return int(np.flatnonzero(row == row.max())[0])
    alive = kept(row, heat, int(sampling.top_k[i]), float(sampling.top_p[i]), float(sampling.min_p[i]))
    p = np.where(alive, np.exp((row - row.max()) / heat), 0.0)
    key = (sampling.streams, sampling.samples, sampling.positions)
    return slow_race(p.tolist(), int(noise_keys(*(column[i : i + 1] for column in key))[0]))


def slow_noise(key: int, counter: int) -> float:
    """splitmix64 with Python's own integers: the state after `counter` + 1 steps, mixed, as an exponential number."""
    word = 2**64
    z = (key + (counter + 1) * 0x9E3779B97F4A7C15) % word
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) % word
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) % word
    z ^= z >> 31
    return -math.log(((z >> 11) + 0.5) / 2**53)


def slow_race(weights: list[float], key: int) -> int:
    """The block of 256 ids that comes first, then the id in it; of numbers without weight none runs."""

    def first(runners: list[tuple[float, int, int]]) -> int:
        return min((slow_noise(key, counter) / weight, who) for weight, counter, who in runners if weight > 0)[1]

    blocks = [sum(weights[at : at + 256]) for at in range(0, len(weights), 256)]
    block = first([(weight, -1 - b, b) for b, weight in enumerate(blocks)])
    ids = range(block * 256, min(block * 256 + 256, len(weights)))
    return first([(weights[i], i, i) for i in ids])
