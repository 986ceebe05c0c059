"""What is done to the heads of a layer between their product and attention."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class HeadRotation:
    """How the heads of rows are normed and rotated.

    `n_q`, `n_k`: of a row's `n_q + 2 * n_k` heads, the first `n_q` are queries, then come keys, then values.
    `norms`: weights (`[head_dim]`) with which queries and keys are normed first, None: they are not.
    `angles`: cosines and sines, two of `[rows, 1, head_dim / 2]`.
    """

    n_q: int
    n_k: int
    angles: tuple[Tensor, Tensor]
    norms: tuple[Tensor, Tensor] | None
    eps: float

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Everything that a kernel reads beside the heads."""
        return self.angles if self.norms is None else (*self.angles, *self.norms)

    def check(self, heads: Tensor) -> None:
        """Raise ValueError where `heads` (`[rows, n_q + 2 * n_k, head_dim]`) are others than these."""
        rows, n_heads, dim = heads.shape
        if n_heads != self.n_q + 2 * self.n_k or any(a.numel() != rows * (dim // 2) for a in self.angles):
            heads_of, angles_of = tuple(heads.shape), tuple(self.angles[0].shape)
            raise ValueError(f"angles {angles_of} and {self.n_q} + 2 * {self.n_k} heads do not fit {heads_of}")
        if self.norms is not None and any(norm.shape != (dim,) for norm in self.norms):
            raise ValueError(f"norms {tuple(self.norms[0].shape)} do not fit heads of {dim}")
