"""The compiled kernels: what Python calls, with shapes and types checked before addresses are handed over."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from umbel.ir.kv_shape import KVShape
from umbel.ir.step import Step
from umbel.kernels.change import Chain, Change
from umbel.kernels.place import Place
from umbel.kernels.reference import Filters
from umbel.kernels.rotation import HeadRotation
from umbel.kernels.sinks import check_sinks
from umbel.kernels.view import View

INTERFACE = 12
"""Of the compiled module; raised here and in `module.cpp` when what is passed to it changes, so that one that was built
from older sources is not called."""

try:
    from umbel.kernels.native import _umbel

    if (found := getattr(_umbel, "interface", 1)) != INTERFACE:
        raise ImportError(f"they are of version {found}, this checkout needs {INTERFACE}: build them again")
    INSTRUCTION_SETS: tuple[str, ...] = tuple(_umbel.instruction_sets())  # that this processor has, best first
    WHY_NOT = ""
except ImportError as error:
    INSTRUCTION_SETS, WHY_NOT = (), str(error)


_CPU = torch.device("cpu")
_KINDS = (torch.float32, torch.bfloat16)


class Native:
    """The kernels of one instruction set. They compute on CPU tensors, with as many threads as torch has now; the
    result of a row never depends on the other rows of the call, to the last bit. Shapes are checked, and for what
    `takes` says the caller asks it first."""

    on_host = True  # what is drawn, and from which rows, are numpy arrays
    rounds_fp8 = False
    groups_experts = False

    def __init__(self, instruction_set: str):
        self._kernels = _umbel.Native(instruction_set)
        self.instruction_set = instruction_set
        self.threads = _umbel.team_kind()  # "openmp": torch's own; "threads": ours

    def takes(self, *tensors: Tensor) -> bool:
        """Whether the operations on rows below can work on these: all float32 or bfloat16, on the CPU, contiguous."""
        kind = tensors[0].dtype
        return kind in _KINDS and all(t.dtype == kind and t.is_contiguous() and t.device == _CPU for t in tensors)

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """`weight * x / rms(x)` along the last axis."""
        width = _same_width(x, weight)
        out = torch.empty_like(x)
        rows = x.numel() // width
        addresses = x.data_ptr(), 0, 0, weight.data_ptr(), out.data_ptr()
        self._kernels.rms_norm(*addresses, rows, width, eps, _is_narrow(x), torch.get_num_threads())
        return out

    def add_rms_norm(self, x: Tensor, delta: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """`x + delta`, and its `rms_norm`."""
        width = _same_width(x, weight)
        if delta.shape != x.shape:
            raise ValueError(f"delta {tuple(delta.shape)} does not fit x {tuple(x.shape)}")
        total, out = torch.empty_like(x), torch.empty_like(x)
        addresses = x.data_ptr(), delta.data_ptr(), total.data_ptr(), weight.data_ptr(), out.data_ptr()
        self._kernels.rms_norm(*addresses, x.numel() // width, width, eps, _is_narrow(x), torch.get_num_threads())
        return total, out

    def gated_silu(self, gate_up: Tensor) -> Tensor:
        """`silu(gate) * up`: [rows, 2 * width] -> [rows, width]."""
        rows, width = gate_up.shape[0], gate_up.shape[1] // 2
        out = gate_up.new_empty(rows, width)
        addresses = gate_up.data_ptr(), out.data_ptr()
        self._kernels.gated_silu(*addresses, rows, width, _is_narrow(gate_up), torch.get_num_threads())
        return out

    def rotate(self, heads: Tensor, rotation: HeadRotation, place: Place) -> None:
        """Norm and rotate, in place, the queries and keys of `heads` (`[rows, n_q + 2 * n_k, head_dim]`), and store
        keys and values in their place."""
        rows, n_q, n_k, dim = len(heads), rotation.n_q, rotation.n_k, heads.shape[2]
        rotation.check(heads)
        place.check(rows, n_k, dim)
        (cos, sin), norms = rotation.angles, rotation.norms
        weights = (0, 0) if norms is None else (norms[0].data_ptr(), norms[1].data_ptr())
        copies = place.keys.dtype == place.values.dtype == (heads.dtype if place.scales is None else torch.int8)
        to = (place.keys.data_ptr(), place.values.data_ptr(), *_scales(place)) if copies else (0, 0, 0, 0)
        addresses = heads.data_ptr(), cos.data_ptr(), sin.data_ptr(), *weights, *to, place.slots.data_ptr()
        sizes = rows, n_q, n_k, dim, place.keys.shape[1], rotation.eps
        self._kernels.rotate(*addresses, *sizes, _is_narrow(heads), torch.get_num_threads())
        if not copies:
            place.write(heads[:, n_q : n_q + n_k], heads[:, n_q + n_k :])

    def run_chain(self, matrices: Tensor, chain: Chain, change: Change) -> Tensor:
        """What each row's queries read of its matrices once it has changed them: see `chain.run_chain`."""
        rows, heads, key_heads, key_dim, value_dim = change.sizes
        _check_chain(matrices, chain, change)
        out = torch.empty_like(change.values)
        parts = chain.source, chain.target, change.queries, change.keys, change.values, change.decay
        rates = 0 if change.rates is None else change.rates.data_ptr()
        addresses = matrices.data_ptr(), *(part.data_ptr() for part in parts), rates, out.data_ptr()
        sizes = rows, heads, key_heads, key_dim, value_dim
        self._kernels.run_chain(*addresses, *sizes, torch.get_num_threads())
        return out

    def argmax(self, logits: Tensor, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each of `rows` (int64 `[k]`) of `logits` ([rows, width]): the place of the largest value, the first of
        equal ones, and whether the row holds a NaN or its largest value is not finite. Float32 only."""
        if logits.dtype != torch.float32:
            raise TypeError(f"logits are {logits.dtype}, not float32")
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(logits):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {len(logits)}")
        ids, bad = np.empty(len(rows), np.int64), np.empty(len(rows), bool)
        self._kernels.argmax(logits.data_ptr(), rows, logits.shape[1], ids, bad, torch.get_num_threads())
        return ids, bad

    def forbid(self, logits: Tensor, rows: np.ndarray, mask_of: np.ndarray, masks: np.ndarray) -> None:
        """Put -inf in the place of the tokens of `rows` (int64 `[k]`, each once) of `logits` (float32 [rows, width])
        that are not in their masks: rows `mask_of` (int64 `[k]`) of `masks` (uint32 `[masks, words]`)."""
        if logits.dtype != torch.float32 or masks.dtype != np.uint32:
            raise TypeError(f"logits are {logits.dtype}, not float32, or masks {masks.dtype}, not uint32")
        width, (n_masks, words) = logits.shape[1], masks.shape
        if words * 32 < width or (len(rows) and not 0 <= rows.min() <= rows.max() < len(logits)):
            raise IndexError(f"masks of {words} words, rows {rows.tolist()[:9]} of {tuple(logits.shape)}")
        if len(rows) and not 0 <= mask_of.min() <= mask_of.max() < n_masks:
            raise IndexError(f"masks {mask_of.min()} to {mask_of.max()} of {n_masks}")
        threads = torch.get_num_threads()
        self._kernels.forbid(logits.data_ptr(), rows, mask_of, np.ascontiguousarray(masks), width, threads)

    def draw(
        self,
        logits: Tensor,
        rows: np.ndarray,
        best: np.ndarray,
        temperatures: np.ndarray,
        noise: np.ndarray,
        filters: Filters[np.ndarray] | None = None,
    ) -> np.ndarray:
        """For each of `rows` (int64 `[k]`) of `logits` (float32 [rows, width]), whose largest values are at `best`: an
        id drawn from the softmax of the logits divided by `temperatures` (above 0), by the noise that `noise` (int64)
        keys (see `reference.race`), from what `filters` leave (see `reference.filtered`). What rows hold that are not
        finite does not matter, as long as `best` is in range."""
        if logits.dtype != torch.float32:
            raise TypeError(f"logits are {logits.dtype}, not float32")
        for which, limit in ((rows, len(logits)), (best, logits.shape[1])):
            if len(which) != len(rows) or (len(which) and not 0 <= which.min() <= which.max() < limit):
                raise IndexError(f"places {which[:8]} of {limit}, for {len(rows)} draws")
        if not len(temperatures) == len(noise) == len(rows):
            raise ValueError(f"{len(temperatures)} temperatures and {len(noise)} keys for {len(rows)} draws")
        columns = None if filters is None else filters.columns
        if columns is not None and any(len(column) != len(rows) for column in columns):
            raise ValueError(f"filters of {[len(column) for column in columns]} rows for {len(rows)} draws")
        ids, temperatures = np.empty(len(rows), np.int64), np.ascontiguousarray(temperatures, np.float32)
        sizes = logits.shape[1], torch.get_num_threads()
        self._kernels.draw(logits.data_ptr(), rows, best, temperatures, noise, ids, columns, *sizes)
        return ids

    def lay_out(self, step: Step, scratch: int, group: int, n_kv_heads: int, window: int | None) -> _umbel.Forest:
        """A step as cells of the position grid, cut into blocks of rows for torch's threads of now. Rows that are not
        fresh write to slot `scratch`."""
        return _umbel.make_forest(
            step.positions, step.fresh, step.parent, step.start, step.end, step.row_begin, step.row_end,
            step.below_end, step.pages, step.page_begin, step.page_size,
            scratch, group, n_kv_heads, torch.get_num_threads(), window or 0,
        )  # fmt: skip

    def attend(
        self,
        forest: _umbel.Forest,
        q: Tensor,
        place: Place,
        shape: KVShape,
        sinks: Tensor | None = None,
        view: View | None = None,
    ) -> Tensor:
        """Attention of `q` (`[rows, n_heads, key_dim]`, the rows that `forest` was laid out for) with the keys and
        values of a `place`, or those that a `view` leaves, as `shape` says, with its `sinks` (float32 `[n_heads]`):
        `[rows, n_heads, value_dim]`."""
        keys, values = place.keys, place.values
        q = q if q.stride(2) == 1 and q.stride(1) == q.shape[2] else q.contiguous()  # each row in one piece
        _check_attention(forest.rows, q, place, shape)
        check_sinks(shape, sinks)
        if view is not None:
            view.check(len(q), shape.n_kv_heads)
        out = torch.empty((*q.shape[:2], shape.value_dim), dtype=q.dtype)
        self._kernels.attend(
            forest, q.data_ptr(), out.data_ptr(), keys.data_ptr(), values.data_ptr(), *_scales(place),
            0 if sinks is None else sinks.data_ptr(), *_reads(view), q.stride(0), keys.shape[1],
            values.stride(0), values.stride(1), shape.n_kv_heads, shape.group_size, shape.key_dim, shape.value_dim,
            shape.scale, shape.cap or 0.0, shape.window or 0, _is_narrow(q), _is_narrow(keys), torch.get_num_threads(),
        )  # fmt: skip
        return out


def _check_chain(matrices: Tensor, chain: Chain, change: Change) -> None:
    rows, heads, key_heads, key_dim, value_dim = change.sizes
    pages, columns = len(matrices), [change.decay, *([] if change.rates is None else [change.rates])]
    fits = matrices.shape == (pages, heads, key_dim, value_dim) and heads % key_heads == 0
    fits &= change.queries.shape == change.keys.shape and all(each.shape == (rows, heads) for each in columns)
    floats = [matrices, change.queries, change.keys, change.values, *columns]
    if not fits or any(t.dtype != torch.float32 or not t.is_contiguous() or t.device != _CPU for t in floats):
        shapes = [tuple(t.shape) for t in floats]
        raise ValueError(f"matrices, queries, keys, values, decay and rates {shapes}: not of one size, or not float32")
    for which in (chain.source, chain.target):
        if which.dtype != torch.int64 or which.shape != (rows,) or not which.is_contiguous():
            raise ValueError(f"pages {tuple(which.shape)} of {which.dtype} for {rows} rows")
        if rows and not -1 <= int(which.min()) <= int(which.max()) < pages:
            raise IndexError(f"pages {int(which.min())} to {int(which.max())} of {pages}")


def _is_narrow(t: Tensor) -> bool:
    return t.dtype == torch.bfloat16


def _same_width(x: Tensor, weight: Tensor) -> int:
    if weight.shape != x.shape[-1:]:
        raise ValueError(f"weight {tuple(weight.shape)} does not fit x {tuple(x.shape)}")
    return len(weight)


def _reads(view: View | None) -> tuple[int, int, int]:
    """The addresses of what tiles read and of the tiles of rows, and how many cells there are; 0 without a view."""
    return (0, 0, 0) if view is None else (view.reads.data_ptr(), view.tile_of.data_ptr(), view.reads.shape[2])


def _scales(place: Place) -> tuple[int, int]:
    """The addresses of the scales of keys and values, 0 where there are none."""
    return (0, 0) if place.scales is None else (place.scales[0].data_ptr(), place.scales[1].data_ptr())


def _check_attention(rows: int, q: Tensor, place: Place, shape: KVShape) -> None:
    keys, values = place.keys, place.values
    n, slots, dim = keys.shape
    fits = (n, dim) == (shape.n_kv_heads, shape.key_dim) and values.shape == (n, slots, shape.value_dim)
    if not fits or q.shape != (rows, shape.n_heads, dim):
        raise ValueError(f"q {tuple(q.shape)}, keys {tuple(keys.shape)}, values {tuple(values.shape)} for {rows} rows")
    kinds = _KINDS if place.scales is None else (torch.int8,)
    if q.dtype not in _KINDS or keys.dtype not in kinds or values.dtype != keys.dtype:
        raise TypeError(f"q is {q.dtype}, keys are {keys.dtype}, values {values.dtype}")
    if not keys.is_contiguous() or values.stride(2) != 1:
        raise ValueError(f"keys {keys.stride()} or values {values.stride()} are not side by side")
