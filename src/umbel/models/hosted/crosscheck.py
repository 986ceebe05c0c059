"""A loaded module against itself: its own attention on whole sequences, and ours on packed pieces of them.

What a config and a probe cannot show (positions that are counted otherwise, a state between tokens, layers that look at
their neighbours) shows in the logits of a few tokens.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from umbel.attention.pick import pick_attention
from umbel.errors import ModelError
from umbel.ir.spec import ModelSpec
from umbel.ir.step import Sampling, Step
from umbel.kernels.transfer import upload
from umbel.kv.store import KVStore
from umbel.models.hosted import attention
from umbel.models.hosted.decoder import HostedDecoder

LENGTHS, FIRST = (13, 9), (6, 5)  # of the sequences, and of their first pieces
PAGE = 16
MOST = {torch.float32: 1e-3}  # of a row's logits, relative to their spread
MOST_ROUNDED = 0.1


def own_logits(module: PreTrainedModel, spec: ModelSpec) -> list[Tensor]:
    """What the module computes by itself for each sequence: float32 `[tokens, vocab]`."""
    module.set_attn_implementation("eager")
    with torch.inference_mode():
        found = [
            module(input_ids=torch.from_numpy(ids)[None], use_cache=False).logits[0].float() for ids in _sequences(spec)
        ]
    module.set_attn_implementation(attention.NAME)
    return found


def check_equal(decoder: HostedDecoder, expected: list[Tensor]) -> None:
    """Raise ModelError unless the decoder gives the logits of `own_logits`, up to rounding."""
    spec, device = decoder.spec, decoder.device
    store = KVStore(spec, len(LENGTHS), PAGE, decoder.dtype, device)
    backend = pick_attention(spec, store, device)
    sequences, found = _sequences(spec), []
    for ranges in ([(0, f) for f in FIRST], list(zip(FIRST, LENGTHS, strict=True))):
        cut = [(min(begin, len(ids)), min(end, len(ids))) for ids, (begin, end) in zip(sequences, ranges, strict=True)]
        found.append(_logits(decoder, backend, sequences, cut).split([end - begin for begin, end in cut]))
    for whole, *parts in zip(expected, *found, strict=True):
        error = (torch.cat(parts).cpu() - whole).square().mean(-1).sqrt() / whole.std(-1).clamp_min(1e-6)
        if not (worst := error.median().item()) <= MOST.get(decoder.dtype, MOST_ROUNDED):
            raise ModelError(
                f"{spec.family!r} models do not give their own logits with our attention ({worst:.2g} of their spread "
                "away): their layers need more than the keys and values of a sequence"
            )


def _sequences(spec: ModelSpec) -> list[np.ndarray]:
    """Ids from the middle of the vocabulary, as its ends hold special tokens."""
    generator, low = np.random.default_rng(0), spec.vocab_size // 4
    lengths = (min(length, spec.max_positions) for length in LENGTHS)
    return [generator.integers(low, max(low + 1, spec.vocab_size // 2), length) for length in lengths]


def _logits(decoder: HostedDecoder, backend: attention.AttentionBackend, sequences: list, cut: list) -> Tensor:
    """Logits of a piece of each sequence, computed side by side in one step."""
    step = _step(sequences, cut)
    backend.prepare(step)
    with torch.inference_mode():
        tokens, positions = upload(decoder.device, step.tokens, step.positions)
        return decoder.logits(decoder.forward(decoder.embed(tokens, positions), decoder.batch(positions), backend))


def _step(sequences: list, cut: list) -> Step:
    """A step in which each sequence is a node with a page of its own."""
    counts = np.array([end - begin for begin, end in cut])
    ends, nodes = np.cumsum(counts), np.arange(len(cut))
    none, zeros = np.empty(0, np.int64), np.empty(0, np.float64)
    return Step(
        tokens=np.concatenate([ids[begin:end] for ids, (begin, end) in zip(sequences, cut, strict=True)]),
        positions=np.concatenate([np.arange(begin, end) for begin, end in cut]),
        fresh=np.ones(counts.sum(), bool),
        parent=np.full(len(cut), -1),
        start=np.zeros(len(cut), np.int64),
        end=np.array([end for _, end in cut]),
        row_begin=ends - counts,
        row_end=ends,
        below_end=ends,
        pages=nodes,
        page_begin=nodes,
        page_size=PAGE,
        sampling=Sampling(none, zeros, none, zeros, zeros, none, none, none, none, none),
    )
