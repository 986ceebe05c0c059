"""The compiled kernels: what Python calls, with shapes and types checked before addresses are handed over."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from umbel.ir.step import Step
from umbel.kernels.reference import Filters

try:
    from umbel.kernels.native import _umbel

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

    filters = True  # whether `draw` knows top-k, top-p and min-p

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

    def rotate(
        self,
        heads: Tensor,
        n_turned: tuple[int, int],
        angles: tuple[Tensor, Tensor],
        norms: tuple[Tensor, Tensor] | None,
        eps: float,
    ) -> None:
        """Norm (with the weights of queries and keys, where given) and turn, in place, the first queries and keys of
        `heads` ([rows, heads, head_dim]); `angles` are the rows' cosines and sines ([rows, ..., head_dim / 2])."""
        rows, n_heads, dim = heads.shape
        if any(a.numel() != rows * (dim // 2) for a in angles) or sum(n_turned) > n_heads:
            raise ValueError(f"angles {tuple(angles[0].shape)} and {n_turned} heads do not fit {tuple(heads.shape)}")
        if norms is not None and any(_same_width(heads, n) != dim for n in norms):
            raise ValueError("norms do not fit the heads")
        weights = (0, 0) if norms is None else (norms[0].data_ptr(), norms[1].data_ptr())
        addresses = heads.data_ptr(), angles[0].data_ptr(), angles[1].data_ptr(), *weights
        sizes = rows, n_heads, *n_turned, dim
        self._kernels.rotate(*addresses, *sizes, eps, _is_narrow(heads), torch.get_num_threads())

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
            step.subtree_end, step.pages, step.page_begin, step.page_size,
            scratch, group, n_kv_heads, torch.get_num_threads(), window or 0,
        )  # fmt: skip

    def attend(
        self,
        forest: _umbel.Forest,
        qkv: tuple[Tensor, Tensor, Tensor],
        keys: Tensor,
        values: Tensor,
        window: int | None,
    ) -> Tensor:
        """Store k and v in the rows' slots of `keys` and `values` ([n_kv_heads, slots, head_dim]), then attend with q
        ([rows, n_heads, head_dim]); the rows are those that `forest` was laid out for."""
        q, k, v = (_rows_of_heads(t) for t in qkv)
        kv_heads, slots, dim = keys.shape
        if k.stride(0) != v.stride(0):
            k, v = k.contiguous(), v.contiguous()
        _check_attention(forest.rows, (q, k, v), keys, values)
        out = torch.empty(q.shape, dtype=q.dtype)
        self._kernels.forward(
            forest, q.data_ptr(), k.data_ptr(), v.data_ptr(), out.data_ptr(), keys.data_ptr(), values.data_ptr(),
            q.stride(0), k.stride(0), slots, kv_heads, q.shape[1] // kv_heads, dim, window or 0,
            q.dtype == torch.bfloat16, keys.dtype == torch.bfloat16, torch.get_num_threads(),
        )  # fmt: skip
        return out


def _is_narrow(t: Tensor) -> bool:
    return t.dtype == torch.bfloat16


def _same_width(x: Tensor, weight: Tensor) -> int:
    if weight.shape != x.shape[-1:]:
        raise ValueError(f"weight {tuple(weight.shape)} does not fit x {tuple(x.shape)}")
    return len(weight)


def _rows_of_heads(t: Tensor) -> Tensor:
    """The tensor itself when each row is one piece of memory, else a copy."""
    return t if t.stride(2) == 1 and t.stride(1) == t.shape[2] else t.contiguous()


def _check_attention(rows: int, qkv: tuple[Tensor, Tensor, Tensor], keys: Tensor, values: Tensor) -> None:
    q, k, v = qkv
    kv_heads, _, dim = keys.shape
    shapes = k.shape == v.shape == (rows, kv_heads, dim) and q.shape[0] == rows and q.shape[2] == dim
    if not shapes or q.shape[1] % kv_heads or values.shape != keys.shape:
        raise ValueError(f"q {tuple(q.shape)}, k {tuple(k.shape)}, keys {tuple(keys.shape)} for {rows} rows")
    kinds = {q.dtype, keys.dtype} <= {torch.float32, torch.bfloat16}
    if not kinds or {k.dtype, v.dtype, values.dtype} != {keys.dtype}:
        raise TypeError(f"q is {q.dtype}, k {k.dtype}, v {v.dtype}, the store {keys.dtype}")
    if not (keys.is_contiguous() and values.is_contiguous()):
        raise ValueError("the store is not contiguous")
